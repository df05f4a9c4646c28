//! What a place to keep history in has to do. [`Memory`](super::Memory) is one; one that several sidecars share can be
//! another.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Finish, PromptKey, Rollout};
use crate::speculation::{Sampling, Scored};

/// A rollout's name within its store, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutId(pub u64);

/// An old rollout that serves one new one.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Which.
    pub id: RolloutId,
    /// As it was when it was taken.
    pub rollout: Arc<Rollout>,
    /// Whether that it was there to be taken says nothing of its tokens. If not, its drafts are not distributed as their
    /// rows say, and only [point masses](crate::speculation::Draft::certain) of them are exact.
    ///
    /// It says nothing once all rollouts that began under other versions are over. While one runs, those that are over
    /// are the short ones; where one went on under the present version, and so cannot be taken, the others are too.
    pub is_unselected: bool,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompts.
    pub prompts: usize,
    /// Their rollouts, running ones included.
    pub rollouts: usize,
    /// The rollouts' tokens.
    pub tokens: usize,
    /// Bytes for all that.
    pub bytes: usize,
}

impl Usage {
    /// Bytes for each token of a rollout.
    #[must_use]
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }
}

/// Keeps rollouts by prompt.
///
/// A store may forget a prompt at any time, even while its rollouts run: that costs drafts and nothing else. Which one
/// may depend on age and size, which hardly depends on what the tokens are.
pub trait History: Send + Sync + Debug {
    /// So many rollouts of the prompt are about to begin under `version`: what is kept elsewhere is sent for. There is
    /// something to wait for where it may be here in a moment, which takes a few milliseconds at most; they can as well
    /// begin without.
    fn expect(&self, _key: &PromptKey, _version: &Arc<str>, _count: usize) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// A rollout of the prompt begins under `version`; of `sampling`, see [`Rollout::new`].
    fn begin(&self, key: &PromptKey, version: &Arc<str>, sampling: Option<Sampling>) -> RolloutId;

    /// A rollout goes on with tokens scored under `version`. False if it is forgotten.
    fn extend(&self, key: &PromptKey, id: RolloutId, version: &Arc<str>, scored: &[Scored]) -> bool;

    /// A rollout ends. False if it is forgotten.
    fn finish(&self, key: &PromptKey, id: RolloutId, finish: Finish) -> bool;

    /// The prompt's rollouts as they are now, running ones included, in the order in which they began.
    fn rollouts(&self, key: &PromptKey) -> Vec<Arc<Rollout>>;

    /// An old rollout of the prompt for a new one under `version`: of those that are over, have tokens, and served none
    /// yet, the one that began last.
    ///
    /// Nothing that ran under `version` itself is given: a rollout that begins with another's tokens under the same
    /// policy would repeat it, and the rollouts of one epoch are to be independent. For the same reason nothing is given
    /// twice, also under another version: whom it served has its tokens, and takes its place.
    fn take(&self, key: &PromptKey, version: &str) -> Option<Lease>;

    /// How much is kept.
    fn usage(&self) -> Usage;
}
