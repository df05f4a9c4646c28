//! The seam between the model thread, which knows sequences and their pages, and what computes.

use rand::rngs::StdRng;

use super::config::ModelConfig;
use super::error::ModelError;
use super::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Positions in a page of the KV cache.
pub(super) const PAGE: usize = 16;

/// A page of the KV cache: [`PAGE`] positions of every layer. Ids are below [`Backend::pages`], and low ones are used
/// first.
pub(super) type PageId = u32;

/// A model that is ready to run, with memory for its pages.
pub(super) trait Backend: Send {
    fn config(&self) -> &ModelConfig;

    /// Pages that there are, at least one.
    fn pages(&self) -> usize;

    /// Rows that a step takes in one go, so that it may have as many whatever the settings say; 1 if they cost each.
    fn rows_at_once(&self) -> usize {
        1
    }

    /// Notes ids of contexts, for those who draft from a part of the vocabulary.
    fn learn(&mut self, ids: &[TokenId]);

    /// Runs every feed's tokens, and then what each asks for. Outcomes are in the feeds' order. No two feeds hold a page
    /// in common that either writes.
    ///
    /// # Errors
    /// Only what no later step could mend: it ends the model thread.
    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError>;
}

/// What one sequence brings to a step.
pub(super) struct Feed<'a> {
    /// Position p's keys and values lie in `pages[p / PAGE]`. There are enough for all that the step can come to hold:
    /// `start + tokens` positions and one for each draft but the last.
    pub(super) pages: &'a [PageId],
    /// Positions that are held already. Only later ones are written.
    pub(super) start: usize,
    /// To run after those; at least one.
    pub(super) tokens: &'a [TokenId],
    pub(super) then: Then<'a>,
}

/// What follows a feed's tokens.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    /// The context is not at its end, or nobody draws from it yet.
    Nothing,
    /// At least one draft and at most so many.
    Draft { sampling: &'a DraftSampling, at_most: usize },
    /// The logits after the last token.
    Logits,
}

/// What came of a feed.
pub(super) enum Outcome {
    Nothing,
    /// As many as the backend found convenient; all but the last were run, so that the pages hold
    /// `start + tokens + drafts − 1` positions. None at all: no id that may be drafted has a finite logit.
    Drafts(Vec<DraftedToken>),
    /// [vocabulary].
    Logits(Vec<f32>),
}
