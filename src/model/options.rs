//! How the draft model is held in memory and how it runs.

use super::backend::PageId;
use super::cuda::CudaOptions;
use super::device::DeviceChoice;
use super::error::ModelError;

/// How the weight matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 8-bit integers in blocks of 32 with one 32-bit scale each, 1.125 bytes a weight; inputs are rounded to 16
    /// bits for each product, and keys and values are held in 16 bits with one scale for each position and head. It reads
    /// about a quarter of the memory that [`Precision::F32`] does, of a long context half.
    #[default]
    Q8_0,
    /// 32-bit floats: the reference, for tests and comparisons.
    F32,
}

/// MiB for keys and values unless told otherwise.
pub const DEFAULT_CACHE_MIB: usize = 4096;

/// Settings of a draft model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOptions {
    /// What computes.
    pub device: DeviceChoice,
    /// Where CUDA is, for a GPU.
    pub cuda: CudaOptions,
    /// How the CPU holds the weight matrices; a GPU holds them in bfloat16.
    pub precision: Precision,
    /// The CPU's threads, at least 1. With 1, the model thread computes alone.
    pub threads: usize,
    /// Bytes for keys and values. Sequences that begin alike share them; beyond it, those of the sequence that was not used
    /// for longest are dropped, and computed again when it returns. No context is longer than it holds. On the CPU it is
    /// taken from the system as it is first written; on a GPU at once, as much of it as is free.
    pub cache_bytes: usize,
    /// Positions a sequence may have, if fewer than the model's own limit.
    pub max_positions: Option<usize>,
    /// Token rows in one forward pass at most, at least 1: a longer prefill is cut, so that decoding sequences
    /// never wait for a whole prompt. A GPU takes as many as it reads at once if that is more.
    pub rows_per_pass: usize,
    /// Commands that may wait for the model thread; callers wait beyond it.
    pub queue: usize,
    /// On the CPU, with a vocabulary of more than twice this: drafts are drawn from so many of its lowest ids and at most as many
    /// others, learnt from contexts. None: from all of it.
    pub shortlist: Option<usize>,
    /// Seed of the thread's random numbers; the system's entropy if absent.
    pub seed: Option<u64>,
}

impl ModelOptions {
    /// Pages of so many bytes that there is room for.
    ///
    /// # Errors
    /// [`ModelError::CacheTooSmall`] where there is room for none.
    pub(super) fn pages(&self, page_bytes: usize) -> Result<usize, ModelError> {
        match (self.cache_bytes / page_bytes).min(PageId::MAX as usize) {
            0 => Err(ModelError::CacheTooSmall { bytes: self.cache_bytes, page: page_bytes }),
            pages => Ok(pages),
        }
    }
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            cuda: CudaOptions::default(),
            precision: Precision::Q8_0,
            threads: 1,
            cache_bytes: DEFAULT_CACHE_MIB << 20,
            max_positions: None,
            rows_per_pass: 64,
            queue: 256,
            shortlist: Some(8192),
            seed: None,
        }
    }
}
