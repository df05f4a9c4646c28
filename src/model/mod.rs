//! The draft model: weights, batched decoding, KV cache with rollback.
//!
//! One thread owns the weights and every sequence's KV cache ([`DraftModel`] is a handle to it). Each of its
//! passes takes whatever waits: decode rows of several sequences and chunks of prefills share one read of the
//! weights. What nobody waits for, prefills and drafts ahead, runs while nobody waits. A [`Sequence`] is a rollout's place
//! in it; dropping it frees the place. With a large vocabulary, drafts are drawn from a list of the ids that come up.
//!
//! ```text
//! ModelSource ──► weights (a reader of named tensors) ──► Llama ──► worker thread ◄── commands ── Sequence
//! ```

#[allow(dead_code, reason = "only the GPU's side uses it so far")]
mod backend;
mod cache;
mod config;
mod cuda;
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
mod shortlist;
mod slot;
#[cfg(test)]
mod tests;
mod weights;
mod worker;

pub use cuda::{BenchModel, CudaBench, CudaOptions, KnownShape, Measured};
pub use error::ModelError;
pub use handle::{DraftModel, LoadedModel, Sequence};
pub use options::{ModelOptions, Precision};
pub use sample::{DraftSampling, DraftedToken};
pub use weights::{ModelSource, gguf_vocabulary};
