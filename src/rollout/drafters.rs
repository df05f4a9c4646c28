//! The drafters of one rollout.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use super::past::Group;
use super::traced;
use crate::draft::{DraftError, DraftRequest, Drafter, ReplayDrafter};
use crate::speculation::{Proposal, TokenId};
use crate::telemetry::{DraftMetrics, HistoryMetrics, Timer, message_of};

/// Makes the drafters of a new rollout.
pub trait DrafterFactory: Send + Sync {
    /// One of each kind, the one to ask first in front; the same kinds in the same order each time.
    fn drafters(&self) -> Vec<Box<dyn Drafter>>;
}

/// How a drafter comes to its proposals, those to ask first in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Supply {
    /// They are there, and were drawn long ago: nobody looks at them before it is decided to have them judged.
    Drawn,
    /// They are made when they are asked for, which takes time.
    Made,
    /// They cost next to nothing: it may be asked just to see how well it would have done.
    Free,
    /// They cost next to nothing, too, and come of what nobody may look at: whoever asks for them does without that.
    Veiled,
}

/// The drafter of an old rollout.
struct Replay {
    /// What it has where the rollouts agree so far; one more where they have parted, for how it fares then is another matter.
    number: usize,
    drafter: ReplayDrafter,
    /// What is counted of it.
    metrics: HistoryMetrics,
}

impl Replay {
    fn number_now(&self) -> usize {
        self.number + usize::from(self.drafter.has_parted())
    }

    fn is(&self, number: usize) -> bool {
        (self.number..=self.number + 1).contains(&number)
    }
}

/// The drafters that a rollout still has, each under the number it had at first.
pub struct Drafters {
    list: Vec<(usize, Box<dyn Drafter>)>,
    /// The number of the one in the list that has seen old rollouts.
    knowing: Option<usize>,
    replay: Option<Replay>,
    metrics: DraftMetrics,
}

impl Drafters {
    /// New drafters, whose work is counted in `metrics`: those of the factory, then those that know others of the group.
    #[must_use]
    pub(super) fn new(factory: &dyn DrafterFactory, group: Option<&Group>, metrics: DraftMetrics) -> Self {
        let mut list: Vec<_> = factory.drafters().into_iter().enumerate().collect();
        let own = list.len();
        let suffix = group.and_then(Group::suffix);
        let knowing = suffix.is_some().then_some(own);
        list.extend(suffix.map(|suffix| (own, Box::new(suffix) as Box<dyn Drafter>)));
        let replay = group.and_then(|group| {
            Some(Replay { number: own + 1, drafter: group.replay()?, metrics: group.past.metrics.clone() })
        });
        Self { list, knowing, replay, metrics }
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Does without drafts from here on.
    pub fn clear(&mut self) {
        self.list.clear();
        (self.knowing, self.replay) = (None, None);
    }

    /// The numbers of those that may be asked for drafts after `context` in a step under `version`, with how they come to
    /// them.
    ///
    /// While an old rollout may be proposed, no drafter is asked that has seen it: what that one said would tell of drafts
    /// that were drawn, and they are distributed as their rows say only while the choice among the ways to go on does not
    /// depend on them. Once they have parted it may be asked instead, by its record alone, and not beside it.
    pub fn standing(&mut self, context: &[TokenId], version: &Arc<str>) -> Vec<(usize, Supply)> {
        let drawn = self.drawn(context, version);
        let has_parted = self.has_parted();
        let is_veiled = |number: usize| drawn.is_some() && self.knowing == Some(number);
        let list = self.list.iter().filter(|(number, _)| has_parted || !is_veiled(*number));
        let supply = |number: usize, drafter: &dyn Drafter| match drafter.is_free() {
            _ if is_veiled(number) => Supply::Veiled,
            true => Supply::Free,
            false => Supply::Made,
        };
        let mut standing: Vec<_> = list.map(|(number, drafter)| (*number, supply(*number, drafter.as_ref()))).collect();
        standing.extend(drawn.map(|number| (number, Supply::Drawn)));
        standing
    }

    /// The number of the drafter of an old rollout, if that goes on after `context`.
    fn drawn(&mut self, context: &[TokenId], version: &Arc<str>) -> Option<usize> {
        let replay = self.replay.as_mut()?;
        if let Some(lease) = replay.drafter.under(version) {
            replay.metrics.replayed(lease.is_unselected && lease.rollout.sampling().is_some());
        }
        replay.drafter.has_more(context).then(|| replay.number_now())
    }

    /// Whether an old rollout is held that this one has parted from.
    #[must_use]
    pub fn has_parted(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| replay.drafter.has_parted())
    }

    /// Whether this drafter's proposals cost next to nothing.
    #[must_use]
    pub fn is_free(&self, number: usize) -> bool {
        self.list.iter().any(|(of, drafter)| *of == number && drafter.is_free())
    }

    /// Does without the old rollout from here on.
    pub fn end_replay(&mut self) {
        self.replay = None;
    }

    /// The number under which drafts of an old rollout are known from the start, whether there is one or not.
    #[must_use]
    pub fn replay_number(&self) -> Option<usize> {
        self.replay.as_ref().map(|replay| replay.number)
    }

    /// The number of the drafter of an old rollout.
    #[must_use]
    pub fn drawn_number(&self) -> Option<usize> {
        let replay = self.replay.as_ref()?;
        replay.drafter.version().map(|_| replay.number_now())
    }

    /// The version under which alone a proposal of this drafter may be judged, if it matters.
    #[must_use]
    pub fn version(&self, number: usize) -> Option<Arc<str>> {
        self.replay.as_ref().filter(|replay| replay.is(number))?.drafter.version().cloned()
    }

    /// Tells each the context early.
    pub fn prepare(&mut self, context: &[TokenId]) {
        for (_, drafter) in &mut self.list {
            drafter.prepare(context);
        }
    }

    /// Tells the others of the group, through those who know them, what this rollout has come to.
    pub fn tell(&mut self, context: &[TokenId]) {
        if let Some((_, drafter)) = self.list.iter_mut().find(|(number, _)| self.knowing == Some(*number)) {
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
    /// before those that cost nothing, for they know more.
    pub async fn propose(&mut self, request: DraftRequest<'_>, version: &Arc<str>) -> Option<(usize, Proposal)> {
        let standing = self.standing(request.context, version);
        let mut numbers: Vec<_> = standing.into_iter().map(|(number, supply)| (supply, number)).collect();
        numbers.sort_unstable();
        for (_, number) in numbers {
            let proposal = self.propose_by(number, request).await;
            if !proposal.drafts.is_empty() {
                return Some((number, proposal));
            }
        }
        None
    }

    /// The name of a drafter.
    #[must_use]
    pub fn name(&self, number: usize) -> &'static str {
        match (&self.replay, self.list.iter().find(|(of, _)| *of == number)) {
            (_, Some((_, drafter))) => drafter.name(),
            (Some(replay), None) if replay.is(number) => replay.drafter.name(),
            _ => "none",
        }
    }

    /// One drafter's proposal. A drafter that fails is counted and has none, and is left out for the rest of the rollout if it
    /// cannot recover, as one that panicked cannot.
    pub async fn propose_by(&mut self, number: usize, request: DraftRequest<'_>) -> Proposal {
        let listed = self.list.iter_mut().find(|(of, _)| *of == number).map(|(_, drafter)| drafter.as_mut());
        let replay = self.replay.as_mut().filter(|replay| replay.is(number));
        let Some(drafter) = listed.or(replay.map(|replay| &mut replay.drafter as &mut dyn Drafter)) else {
            return Proposal::default();
        };
        let name = drafter.name();
        let (timer, span) = (Timer::start(), traced::proposal(name));
        let proposing = AssertUnwindSafe(async { drafter.propose(request).await }).catch_unwind();
        let proposed = proposing.instrument(span.clone()).await;
        match proposed.unwrap_or_else(|panic| Err(DraftError::Stopped(format!("it panicked: {}", message_of(&*panic)))))
        {
            Ok(proposal) => {
                traced::note(&span, "drafts", proposal.drafts.len());
                if !proposal.drafts.is_empty() {
                    self.metrics.proposed(name, timer);
                }
                proposal
            }
            Err(error) => {
                self.metrics.failed(name, &error);
                tracing::warn!(drafter = name, %error, "no draft");
                if error.is_final() {
                    self.list.retain(|(of, _)| *of != number);
                    self.replay = self.replay.take().filter(|replay| !replay.is(number));
                }
                Proposal::default()
            }
        }
    }
}
