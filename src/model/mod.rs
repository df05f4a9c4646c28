//! The draft model: weights, batched decoding, KV cache with rollback.
//!
//! One thread owns the weights and every sequence's KV cache ([`DraftModel`] is a handle to it). Each of its
//! passes takes whatever waits: decode rows of several sequences and chunks of prefills share one read of the
//! weights. A [`Sequence`] is a rollout's place in it; dropping it frees the place.
//!
//! ```text
//! ModelSource ──► weights (a reader of named tensors) ──► Llama ──► worker thread ◄── commands ── Sequence
//! ```

mod cache;
mod config;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod forward;
mod handle;
mod job;
mod kernels;
mod llama;
mod matrix;
mod options;
mod parallel;
mod sample;
mod slot;
#[cfg(test)]
mod tests;
mod weights;
mod worker;

pub use error::ModelError;
pub use handle::{DraftModel, LoadedModel, Sequence};
pub use options::{ModelOptions, Precision};
pub use sample::{DraftSampling, DraftedToken};
pub use weights::{ModelSource, gguf_vocabulary};
