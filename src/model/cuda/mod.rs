//! The draft model on a GPU: the kernels of `kernels/`, compiled at run time for the model's shape and the GPU that is
//! there.
//!
//! The CUDA libraries are loaded when a model is put on a GPU and not before; nothing of CUDA is needed to build, nor
//! to run elsewhere. Whatever fails here is a [`ModelError`](super::ModelError), never the process.
//!
//! ```text
//! Weights ──► Engine ──► Planner (launches as data) ──► Device ──► Gpu: driver, NVRTC, cache of binaries, cuBLASLt
//!             (Backend)  geometry, batch                      └──► tests: the kernels emulated on the host
//! ```

#![allow(unsafe_code, reason = "calls into the CUDA libraries; each block says why it is sound")]

mod batch;
mod binaries;
mod compiler;
mod device;
mod driver;
mod engine;
mod geometry;
mod libraries;
mod library;
mod loader;
mod passes;
mod prefill;
mod source;
mod start;
#[cfg(test)]
mod tests;
mod weights;

pub use libraries::CudaOptions;
pub(super) use start::{open, open_measured};
