//! What a rollout is to be, and what it tells on its way.

use std::sync::Arc;

use super::sequence::{Finish, FinishRules, TextRules};
use crate::speculation::{Sampling, Scored, TokenId};
use crate::text::TextError;
use crate::upstream::{UpstreamError, VersionSpan};
use crate::verify::{Prefill, PrefillWishes, Terms};

/// Why a rollout could not be finished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RolloutError {
    /// The server could not be reached or refused.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A token has no text.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// What a rollout has come to since the last delta.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    /// Tokens committed.
    pub tokens: Vec<Scored>,
    /// Text that became certain.
    pub text: String,
    /// Set by the last delta.
    pub finish: Option<Finish>,
    /// Set by the first delta, and again by a later one that knows more.
    pub prefill: Option<Prefill>,
    /// Which policy version scored which tokens of the whole rollout; set by the last delta.
    pub versions: Option<Vec<VersionSpan>>,
}

/// What a rollout is to be.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The name by which a control request can abort it.
    pub id: Arc<str>,
    /// Prompt tokens; not empty.
    pub prompt: Vec<TokenId>,
    /// What its calls have in common.
    pub terms: Terms,
    /// The sampling parameters in force; absent where the server's defaults are unknown.
    pub sampling: Option<Sampling>,
    /// When it ends.
    pub rules: FinishRules,
    /// How its tokens become text.
    pub text: TextRules,
    /// What is wanted of the prompt.
    pub prefill: PrefillWishes,
}

impl Rollout {
    /// Whether the server's own streams, one for each of `n` rollouts, can tell all that is wanted of the prompt. They tell
    /// of the prefix cache at their end, which a stop string would keep them from reaching, and do not tell which was first.
    pub(super) fn may_begin_as_stream(&self, n: usize) -> bool {
        let one_will_do = n == 1 || !self.prefill.is_streamed;
        self.prefill.prompt_logprobs.is_none() && self.rules.stop.is_empty() && one_will_do
    }

    /// Whether the first call may be a verification, which tells less of the prompt and does not show the server all that
    /// it might refuse.
    pub(super) fn may_begin_by_rows(&self, vocabulary: usize) -> bool {
        let constraints = &self.terms.constraints;
        let knows_stops = constraints.stop_token_ids.iter().all(|id| (*id as usize) < vocabulary);
        self.prefill.prompt_logprobs.is_none() && !constraints.shape_sampling() && knows_stops
    }
}
