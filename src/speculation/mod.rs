//! The mathematics of lossless speculative sampling: synchronous, without IO or a clock, randomness passed in.

pub mod accept;
pub mod classes;
pub mod forecast;
pub mod proposal;
pub mod row;
pub mod target;

pub use accept::{AcceptanceRule, Judge, Lossless, Residual, TailVerdict, Verdict};
pub use classes::Classes;
pub use forecast::{CONFIDENCE_BINS, StopRule, confidence_bin};
pub use proposal::{Draft, DraftDistribution, Proposal, TokenId};
pub use row::{Entry, Observation, Row, Scored};
pub use target::{Known, Sampling, above_border, target};
