//! A pool of threads of the model's own, so that its thread setting is honoured whatever the process does elsewhere.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::error::ModelError;

/// Chunks per thread: more than one, so that a thread that loses its core for a moment does not hold up the rest.
const CHUNKS_PER_THREAD: usize = 4;

/// The threads of one model.
pub(super) struct Threads {
    /// Absent when the model thread computes alone.
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    /// # Errors
    /// [`ModelError::Threads`] when the system gives no thread.
    pub(super) fn new(count: usize) -> Result<Self, ModelError> {
        let build = || rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("draft-model-{i}"));
        let pool = match count {
            0 | 1 => None,
            _ => Some(build().build().map_err(|error| ModelError::Threads(error.to_string()))?),
        };
        Ok(Self { pool })
    }

    /// Runs `pass` where its [`Parallel`] steps find their threads.
    pub(super) fn run<R: Send>(&self, pass: impl FnOnce(Parallel) -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(|| pass(Parallel { threads: pool.current_num_threads() })),
            None => pass(Parallel { threads: 1 }),
        }
    }
}

/// Leave to spread work over the threads of the pool that one runs in.
#[derive(Clone, Copy)]
pub(super) struct Parallel {
    threads: usize,
}

impl Parallel {
    /// Calls `work` with the index of its first unit and a run of whole units, until all of `data` is covered.
    /// `unit` divides the length of `data`; no unit is split, so the result never depends on the thread count.
    pub(super) fn units(self, data: &mut [f32], unit: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        if self.threads == 1 {
            return work(0, data);
        }
        let run = (data.len() / unit).div_ceil(self.threads * CHUNKS_PER_THREAD).max(1);
        data.par_chunks_mut(run * unit).enumerate().for_each(|(index, chunk)| work(index * run, chunk));
    }
}
