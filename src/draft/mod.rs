//! Drafters: what might come next, behind one trait.

mod neural;
mod ngram;

use std::future::Future;
use std::pin::Pin;

pub use neural::NeuralDrafter;
pub use ngram::NgramDrafter;

use crate::speculation::{Proposal, TokenId};

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
}

/// Why a drafter could not propose. Never the client's concern: the rollout goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The model thread is gone; no later call can succeed.
    #[error("the draft model has stopped: {0}")]
    Stopped(String),
    /// This call failed; a later one may succeed.
    #[error("the draft model failed: {0}")]
    Failed(String),
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

    /// Tells the drafter a context early, so that it can prepare (prefill) while the server works.
    fn prepare(&mut self, _context: &[TokenId]) {}
}
