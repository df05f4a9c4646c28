//! Verification: what the target says of a proposal, by whichever way the server has.
//!
//! A row that the server lost to its prefix cache must be got back without looking at the draft: whether it was lost
//! depends on the draft (its block was cached because somebody sampled it before), and a rule chosen by the draft
//! is not exact. So a draft that was drawn at random is judged by a row again, and by the server's own sample only
//! where the context alone decided that there is no row.

mod cached_suffix;
mod fan_out;
mod prompt_logprobs;
pub mod rows;
mod sampler;

use std::future::Future;
use std::pin::Pin;

pub use cached_suffix::CachedSuffix;
pub use fan_out::FanOut;
pub use prompt_logprobs::PromptLogprobs;
pub use sampler::{Drawn, Prefill, PrefillWishes, Sampler, StreamWishes, scored as sampled_as_scored};

use crate::speculation::{Observation, Proposal, Scored, TokenId};
use crate::upstream::{Capabilities, Constraints, IdsText, Origin, Prompt, Route, SamplingFields, UpstreamError};

/// A way to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Prompt log-probabilities of what the prefix cache lacks (A in the documentation).
    CachedSuffix,
    /// Prompt log-probabilities of the whole context (B).
    PromptLogprobs,
    /// One sample after each prefix of the proposal (C).
    FanOut,
}

impl Strategy {
    /// The name under which it is counted and chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CachedSuffix => "cached_suffix",
            Self::PromptLogprobs => "prompt_logprobs",
            Self::FanOut => "fan_out",
        }
    }

    /// Whether the server with these capabilities can be asked this way.
    #[must_use]
    pub fn is_available(self, capabilities: &Capabilities) -> bool {
        match self {
            Self::CachedSuffix => capabilities.raw_logprobs && capabilities.generate.is_trusted(),
            Self::PromptLogprobs => capabilities.raw_logprobs && capabilities.prompt_logprobs,
            Self::FanOut => true,
        }
    }
}

/// What a rollout's calls have in common.
#[derive(Debug, Clone)]
pub struct Terms {
    /// On whose behalf.
    pub origin: Origin,
    /// The client's sampling parameters as it gave them; the server fills in the rest.
    pub fields: SamplingFields,
    /// The same with the server's defaults filled in; absent where those are unknown.
    pub resolved: Option<SamplingFields>,
    /// What bars tokens and what ends the output. `min_tokens` is what is left of it.
    pub constraints: Constraints,
    /// By which route the server samples.
    pub route: Route,
    /// How many of the likeliest tokens each committed token is reported with.
    pub logprobs: usize,
    /// How many of them are to be remembered with it.
    pub rows: usize,
}

impl Terms {
    /// How many of the likeliest tokens to have with each committed one: all that anybody wants.
    #[must_use]
    pub fn companions(&self) -> usize {
        self.logprobs.max(self.rows)
    }
}

/// One proposal to verify.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// What the rollout's calls have in common.
    pub terms: &'a Terms,
    /// Prompt and everything committed, then the drafts.
    pub tokens: &'a [TokenId],
    /// How many of them come before the drafts; not 0.
    pub start: usize,
    /// The text of those.
    pub written: &'a IdsText,
    /// At least one draft.
    pub proposal: &'a Proposal,
    /// How many of the likeliest tokens a row should list.
    pub row_length: usize,
}

impl<'a> Round<'a> {
    /// The first `end` tokens as a prompt: the context, with none or some of the drafts.
    #[must_use]
    pub fn prompt(&self, end: usize) -> Prompt<'a> {
        Prompt::new(self.written, &self.tokens[self.start..end])
    }
}

/// What the target says of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// One for each draft.
    pub observations: Vec<Observation>,
    /// What follows if every draft is kept.
    pub bonus: Scored,
    /// The policy version that scored them, where the server tells.
    pub version: Option<String>,
    /// How many tokens of the request the prefix cache served, the drafts included, where the server tells.
    pub cached_tokens: Option<usize>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The name under which it answers for the model.
    pub model: Option<String>,
    /// How many rows the prefix cache had swallowed and had to be asked for again.
    pub lost_rows: usize,
    /// How often the server had to compute a whole context, since it could not tell of what it had not computed.
    pub recomputed: usize,
    /// Whether the ids that the drafts' own distributions list were scored, too.
    pub given_ids: bool,
}

impl Evidence {
    /// What nothing else is known of.
    fn new(observations: Vec<Observation>, bonus: Scored) -> Self {
        Self {
            observations,
            bonus,
            version: None,
            cached_tokens: None,
            fingerprint: None,
            model: None,
            lost_rows: 0,
            recomputed: 0,
            given_ids: false,
        }
    }
}

/// A boxed future, so that strategies stand behind one trait object.
pub type EvidenceFuture<'a> = Pin<Box<dyn Future<Output = Result<Evidence, UpstreamError>> + Send + 'a>>;

/// A way to have proposals verified by the server.
pub trait Verifier: Send + Sync {
    /// Which way.
    fn strategy(&self) -> Strategy;

    /// Asks the server what it says of each draft of the round, and what comes after the last.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    fn verify<'a>(&'a self, round: Round<'a>) -> EvidenceFuture<'a>;
}
