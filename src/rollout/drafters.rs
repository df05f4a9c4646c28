//! The drafters of one rollout, asked in turn until one has a proposal.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::draft::{DraftError, DraftRequest, Drafter};
use crate::speculation::{Proposal, TokenId};
use crate::telemetry::{DraftMetrics, Timer};

/// Makes the drafters of a new rollout.
pub trait DrafterFactory: Send + Sync {
    /// One of each kind, the one to ask first in front.
    fn drafters(&self) -> Vec<Box<dyn Drafter>>;
}

/// The drafters that a rollout still has.
pub struct Drafters {
    list: Vec<Box<dyn Drafter>>,
    metrics: DraftMetrics,
}

impl Drafters {
    /// New drafters, whose work is counted in `metrics`.
    #[must_use]
    pub fn new(factory: &dyn DrafterFactory, metrics: DraftMetrics) -> Self {
        Self { list: factory.drafters(), metrics }
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

    /// Tells each the context early.
    pub fn prepare(&mut self, context: &[TokenId]) {
        for drafter in &mut self.list {
            drafter.prepare(context);
        }
    }

    /// The first proposal that is not empty. A drafter that fails is counted and passed over, and left out for the
    /// rest of the rollout if it cannot recover, as one that panicked cannot.
    pub async fn propose(&mut self, request: DraftRequest<'_>) -> Proposal {
        let mut at = 0;
        while let Some(drafter) = self.list.get_mut(at) {
            let name = drafter.name();
            let timer = Timer::start();
            let proposed = AssertUnwindSafe(async { drafter.propose(request).await }).catch_unwind().await;
            match proposed.unwrap_or_else(|panic| Err(DraftError::Stopped(message_of(&*panic)))) {
                Ok(proposal) if !proposal.drafts.is_empty() => {
                    self.metrics.proposed(name, timer);
                    return proposal;
                }
                Ok(_) => {}
                Err(error) => {
                    self.metrics.failed(name, &error);
                    tracing::warn!(drafter = name, %error, "no draft");
                    if matches!(error, DraftError::Stopped(_)) {
                        drop(self.list.remove(at));
                        continue;
                    }
                }
            }
            at += 1;
        }
        Proposal::default()
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without a word"))
}
