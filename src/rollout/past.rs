//! What rollouts leave to others of their prompt, and what they get of them.

use std::sync::Arc;

use super::types::Rollout;
use crate::draft::{ReplayDrafter, SuffixDrafter};
use crate::history::{History, Indexes, PromptKey, Tenant};
use crate::speculation::Sampling;
use crate::telemetry::HistoryMetrics;
use crate::upstream::Capabilities;

/// Where rollouts are remembered, and which drafters remember them.
#[derive(Debug, Clone)]
pub struct Past {
    /// The rollouts.
    pub history: Arc<dyn History>,
    /// Their texts, where there is a suffix drafter.
    pub indexes: Option<Arc<Indexes>>,
    /// Whether old rollouts are proposed to new ones.
    pub replays: bool,
    /// Whether others are told of rollouts, too, who may propose or index them.
    pub is_shared: bool,
    /// How many of the likeliest tokens to keep with each token at most.
    pub rows: usize,
    /// What is counted.
    pub metrics: HistoryMetrics,
}

impl Past {
    /// How many of the likeliest tokens to ask a server of these capabilities for with each token.
    ///
    /// One less than it gives at most: on the generate route the last one's place may be the sampled token's, and what is
    /// kept of a row must not depend on the token drawn from it.
    #[must_use]
    pub fn rows_of(&self, capabilities: &Capabilities) -> usize {
        let wanted = if self.replays && capabilities.raw_logprobs { self.rows } else { 0 };
        wanted.min(capabilities.max_logprobs.saturating_sub(1))
    }

    /// What a rollout shares with others of its prompt.
    ///
    /// Absent where it is not certain whose it is: then it shares nothing.
    pub(super) fn of(&self, rollout: &Rollout, capabilities: &Capabilities) -> Option<Group> {
        let origin = &rollout.terms.origin;
        let model = origin.model.as_deref().unwrap_or(&capabilities.model);
        let key = PromptKey::new(Tenant::new(&origin.identity()?), model, &rollout.prompt);
        // Where tokens are barred or biased, a row does not tell what is sampled from.
        let is_told = capabilities.raw_logprobs && !rollout.terms.constraints.shape_sampling();
        Some(Group { past: self.clone(), key, sampling: rollout.sampling.filter(|_| is_told) })
    }
}

/// Rollouts of one prompt, on one tenant's behalf, sampled in one way. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) past: Past,
    pub(super) key: PromptKey,
    /// How they are sampled, where rows tell what that comes to.
    pub(super) sampling: Option<Sampling>,
}

impl Group {
    /// Sends for what is kept elsewhere, since so many rollouts are about to begin under `version`, and gives it a moment
    /// to come.
    pub(super) async fn expect(&self, version: &Arc<str>, count: usize) {
        if let Some(arrival) = self.past.history.expect(&self.key, version, count) {
            arrival.await;
        }
    }

    /// A new rollout's drafter from what the others say.
    pub(super) fn suffix(&self) -> Option<SuffixDrafter> {
        let indexes = self.past.indexes.as_ref()?;
        Some(SuffixDrafter::new(Arc::clone(indexes), self.key.clone()))
    }

    /// A new rollout's drafter from what one of the others said.
    pub(super) fn replay(&self) -> Option<ReplayDrafter> {
        self.past.replays.then(|| ReplayDrafter::new(Arc::clone(&self.past.history), self.key.clone()))
    }
}
