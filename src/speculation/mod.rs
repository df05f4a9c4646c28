//! The mathematics of lossless speculative sampling: synchronous, without IO or a clock, randomness passed in.

pub mod proposal;

pub use proposal::{Draft, DraftDistribution, Proposal, TokenId};
