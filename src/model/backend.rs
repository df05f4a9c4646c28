//! The seam between the model thread, which knows sequences, and what computes.

use rand::rngs::StdRng;

use super::config::LlamaConfig as ModelConfig;
use super::error::ModelError;
use super::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Positions in a page of the KV cache.
pub(super) const PAGE: usize = 16;

/// A page of the KV cache: [`PAGE`] positions of every layer.
pub(super) type PageId = u32;

/// What runs the model.
pub(super) trait Backend: Send {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;
    /// KV pages that there are. A page holds [`PAGE`] positions of every layer.
    fn pages(&self) -> usize;
    /// Notes ids of contexts (for a shortlist).
    fn learn(&mut self, ids: &[TokenId]);
    /// Runs every feed's tokens, and then what each asks for. Outcomes in the feeds' order.
    ///
    /// # Errors
    /// Only what no later step could mend.
    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError>;
}

/// What one sequence brings to a step.
pub(super) struct Feed<'a> {
    /// Position p's keys and values lie in pages[p / PAGE]; there are enough for start + tokens + drafts.
    pub(super) pages: &'a [PageId],
    /// Positions that are held already.
    pub(super) start: usize,
    /// To run after those; at least one.
    pub(super) tokens: &'a [TokenId],
    pub(super) then: Then<'a>,
}

/// What is wanted after a feed's tokens.
pub(super) enum Then<'a> {
    Nothing,
    Draft { sampling: &'a DraftSampling, at_most: usize },
    Logits,
}

/// What a feed asked for. After n drafts the pages hold start + tokens + n − 1 positions: the last draft is not run. No
/// draft at all: no id that may be drafted has a finite logit.
pub(super) enum Outcome {
    Nothing,
    Drafts(Vec<DraftedToken>),
    Logits(Vec<f32>),
}
