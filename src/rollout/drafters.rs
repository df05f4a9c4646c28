//! The drafters of one rollout.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::draft::{DraftError, DraftRequest, Drafter};
use crate::speculation::{Proposal, TokenId};
use crate::telemetry::{DraftMetrics, Timer};

/// Makes the drafters of a new rollout.
pub trait DrafterFactory: Send + Sync {
    /// One of each kind, the one to ask first in front; the same kinds in the same order each time.
    fn drafters(&self) -> Vec<Box<dyn Drafter>>;
}

/// The drafters that a rollout still has, each under the number it had at first.
pub struct Drafters {
    list: Vec<(usize, Box<dyn Drafter>)>,
    metrics: DraftMetrics,
}

impl Drafters {
    /// New drafters, whose work is counted in `metrics`.
    #[must_use]
    pub fn new(factory: &dyn DrafterFactory, metrics: DraftMetrics) -> Self {
        Self { list: factory.drafters().into_iter().enumerate().collect(), metrics }
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Does without drafts from here on.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// The numbers of those left, with whether their proposals are free.
    pub fn numbers(&self) -> impl Iterator<Item = (usize, bool)> + '_ {
        self.list.iter().map(|(number, drafter)| (*number, drafter.is_free()))
    }

    /// Tells each the context early.
    pub fn prepare(&mut self, context: &[TokenId]) {
        for (_, drafter) in &mut self.list {
            drafter.prepare(context);
        }
    }

    /// Lets a drafter go on past the drafts that are being verified.
    pub fn draft_ahead(&mut self, number: usize, request: DraftRequest<'_>) {
        if let Some((_, drafter)) = self.list.iter_mut().find(|(of, _)| *of == number) {
            drafter.draft_ahead(request);
        }
    }

    /// The first proposal that is not empty, with the number of the drafter whose it is. Those that cost something are asked
    /// first, for they know more.
    pub async fn propose(&mut self, request: DraftRequest<'_>) -> Option<(usize, Proposal)> {
        let mut numbers: Vec<_> = self.numbers().map(|(number, is_free)| (is_free, number)).collect();
        numbers.sort_unstable();
        for (_, number) in numbers {
            let proposal = self.propose_by(number, request).await;
            if !proposal.drafts.is_empty() {
                return Some((number, proposal));
            }
        }
        None
    }

    /// One drafter's proposal. A drafter that fails is counted and has none, and is left out for the rest of the rollout if it
    /// cannot recover, as one that panicked cannot.
    pub async fn propose_by(&mut self, number: usize, request: DraftRequest<'_>) -> Proposal {
        let Some(at) = self.list.iter().position(|(of, _)| *of == number) else { return Proposal::default() };
        let drafter = &mut self.list[at].1;
        let name = drafter.name();
        let timer = Timer::start();
        let proposed = AssertUnwindSafe(async { drafter.propose(request).await }).catch_unwind().await;
        match proposed.unwrap_or_else(|panic| Err(DraftError::Stopped(message_of(&*panic)))) {
            Ok(proposal) => {
                if !proposal.drafts.is_empty() {
                    self.metrics.proposed(name, timer);
                }
                proposal
            }
            Err(error) => {
                self.metrics.failed(name, &error);
                tracing::warn!(drafter = name, %error, "no draft");
                if error.is_final() {
                    drop(self.list.remove(at));
                }
                Proposal::default()
            }
        }
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without a word"))
}
