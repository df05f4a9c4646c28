//! What to do next in a rollout: decode or speculate, with which drafter, how far, verified in which way.
//!
//! Everything here but [`monitor`] is a pure function of what was measured, so that a simulator can run it.

pub mod acceptance;
pub mod allowance;
mod choice;
mod costs;
mod curve;
pub mod forecast;
pub mod groups;
mod line;
mod measurement;
pub mod monitor;
mod offers;
mod strategy;
mod tail;
mod together;

pub use acceptance::{Hazard, Judged};
pub use choice::{Bet, Candidate, Choice, Mode, Reason, Situation, TO_REVIEW, choose, is_crowd};
pub use costs::Costs;
pub use curve::Curve;
pub use forecast::Best;
pub use line::{Cost, Line};
pub use measurement::{Belief, Measurement};
pub use offers::new_tokens;
pub use strategy::{Plan, plan};
pub use tail::Tails;

use crate::verify::Strategy;

/// When to speculate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculate {
    /// Where measurements say that it is faster than decoding.
    #[default]
    Auto,
    /// Wherever somebody has a draft, with a fixed length.
    Always,
    /// Never: every rollout is one decode stream.
    Never,
}

/// The operator's choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When to speculate.
    pub speculate: Speculate,
    /// Most tokens to have the draft model draft in a round; where speculation is always on, how many exactly.
    pub draft_tokens: usize,
    /// Most tokens of a proposal that costs nothing to make, as a long repetition of the context does.
    pub longest_match: usize,
    /// Most tokens of an old rollout to have scored in a round.
    pub longest_replay: usize,
    /// Verify this way wherever it is possible, instead of by the best way.
    pub strategy: Option<Strategy>,
    /// At most so many log-probabilities a row, whatever the server would give.
    pub row_limit: usize,
    /// Up to this many tokens of context, scoring all of it anew is cheaper than a sample after each draft.
    pub short_context: usize,
    /// Speculate requests with a seed: what comes is a sample, but not the one that the server's seed would give.
    pub speculate_seeded: bool,
    /// Where speculation is always on: how many tokens to decode plainly when no drafter has a proposal, before
    /// asking again.
    pub decode_burst: usize,
    /// Log a line for each switch between decoding and speculation, with the figures that decided it.
    pub explain: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            speculate: Speculate::Auto,
            draft_tokens: 16,
            longest_match: 64,
            longest_replay: 512,
            strategy: None,
            row_limit: 20,
            short_context: 128,
            speculate_seeded: false,
            decode_burst: 16,
            explain: false,
        }
    }
}
