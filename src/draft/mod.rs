//! Drafters: what might come next, behind one trait.

mod neural;
mod ngram;
mod replay;
mod suffix;

use std::future::Future;
use std::pin::Pin;

pub use neural::NeuralDrafter;
pub use ngram::NgramDrafter;
pub use replay::ReplayDrafter;
pub use suffix::SuffixDrafter;

pub use crate::speculation::{CONFIDENCE_BINS, StopRule, confidence_bin};
use crate::speculation::{Draft, Proposal, TokenId};

/// What a drafter is asked for.
#[derive(Debug, Clone, Copy)]
pub struct DraftRequest<'a> {
    /// Prompt and everything committed so far.
    pub context: &'a [TokenId],
    /// How many tokens at most.
    pub length: usize,
    /// The client's temperature; 0 asks for the drafter's most likely tokens as point masses.
    pub temperature: f64,
    /// The client's top-k, if it bounds the target: drawing from more would only be rejected.
    pub top_k: Option<usize>,
    /// When to stop before `length`.
    pub stop: StopRule,
    /// Ids after which nothing is worth drafting: drafting stops after one of them.
    pub ends: &'a [TokenId],
}

impl<'a> DraftRequest<'a> {
    /// Up to `length` tokens after `context` at temperature 1, with nothing that would stop earlier.
    #[must_use]
    pub fn new(context: &'a [TokenId], length: usize) -> Self {
        Self { context, length, temperature: 1.0, top_k: None, stop: StopRule::never(), ends: &[] }
    }

    /// As many of `drafts` as this asks for.
    pub(crate) fn take(&self, drafts: impl IntoIterator<Item = Draft>) -> Vec<Draft> {
        let mut survival = 1.0;
        let mut taken = Vec::new();
        for draft in drafts.into_iter().take(self.length) {
            let goes_on = self.stop.goes_on(&mut survival, draft.confidence) && !self.ends.contains(&draft.token);
            taken.push(draft);
            if !goes_on {
                break;
            }
        }
        taken
    }
}

/// Why a drafter could not propose. Never the client's concern: the rollout goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The model thread is gone; no later call can succeed.
    #[error("the draft model has stopped: {0}")]
    Stopped(String),
    /// The context holds a token that the drafter has never heard of, which none of the rollout's later contexts loses.
    #[error("the draft model cannot read the context: {0}")]
    UnknownToken(String),
    /// This call failed; a later one may succeed.
    #[error("the draft model failed: {0}")]
    Failed(String),
}

impl DraftError {
    /// Whether the drafter has nothing more to say in this rollout.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::UnknownToken(_))
    }
}

/// A boxed future, so that drafters of different kinds stand behind one trait object.
pub type ProposalFuture<'a> = Pin<Box<dyn Future<Output = Result<Proposal, DraftError>> + Send + 'a>>;

/// One rollout's drafter. Dropping it frees whatever it holds elsewhere (a draft slot, a KV cache).
pub trait Drafter: Send {
    /// The name under which its work is counted.
    fn name(&self) -> &'static str;

    /// Proposes up to `request.length` tokens after `request.context`; an empty proposal says that it has no idea.
    ///
    /// Successive calls belong to one rollout, whose context usually, but not always, extends the previous one.
    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a>;

    /// Tells the drafter a context early, so that it can prepare (prefill) while the server works. It ends work ahead.
    fn prepare(&mut self, _context: &[TokenId]) {}

    /// Goes on drafting after `request.context`, which ends with drafts that the server is verifying, and returns at
    /// once. Of the `request.length` tokens, the first is a guess at the token that the server gives after the drafts,
    /// and its confidence is no part of the stop rule's product.
    ///
    /// A later [`Drafter::propose`] whose context is this one and then the first (or more) of the tokens drafted ahead
    /// gets the rest of them, as far as its own request wants them, as the beginning of its proposal. Any other
    /// context, temperature or top-k, and the work is dropped.
    ///
    /// That is exact: what the server gives does not depend on the tokens drafted ahead, so given that it begins like
    /// them, the others are still distributed as their q says.
    fn draft_ahead(&mut self, _request: DraftRequest<'_>) {}

    /// Whether proposals cost next to nothing, so that it may be asked just to see how well it would have done.
    fn is_free(&self) -> bool {
        false
    }
}
