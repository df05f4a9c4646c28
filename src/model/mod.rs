//! The draft model: weights, batched decoding, a paged KV cache with rollback.
//!
//! One thread owns the model and all sequences ([`DraftModel`] is a handle to it). Each of its passes takes whatever
//! waits: decode rows of several sequences and chunks of prefills share one read of the weights. What nobody waits for,
//! prefills and drafts ahead, runs while nobody waits. A [`Sequence`] is a rollout's place in it; dropping it frees the
//! place. Keys and values lie in pages of a fixed number, which sequences share where they begin alike. With a large
//! vocabulary, drafts are drawn from a list of the ids that come up.
//!
//! ```text
//! Sequence ── commands ──► worker ──► backend ─┬► cpu ──► llama ◄── weights ◄── ModelSource
//!                            │                 │   └───► cache: what the pages hold
//!                            │                 └► cuda: the same on a GPU     (device: which of the two)
//!                            └► schedule, admission, slot ──► pages: who holds which
//! ```

mod admission;
mod backend;
mod bench;
mod cache;
mod config;
mod cpu;
mod cuda;
mod device;
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
mod pages;
mod parallel;
mod sample;
mod schedule;
mod shortlist;
mod slot;
#[cfg(test)]
#[path = "../../tests/support/stats.rs"]
#[allow(dead_code, unreachable_pub, reason = "the integration tests' statistics")]
mod stats;
#[cfg(test)]
mod tests;
mod weights;
mod worker;

pub use bench::{Agreement, Cell, DraftBench, Measured, Misfit};
pub use cuda::CudaOptions;
pub use device::{Device, DeviceChoice, Fallback};
pub use error::ModelError;
pub use handle::{DraftModel, LoadedModel, Sequence};
pub use options::{DEFAULT_CACHE_MIB, ModelOptions, Precision};
pub use sample::{DraftSampling, DraftedToken};
pub use weights::{KnownShape, ModelSource, gguf_vocabulary};
