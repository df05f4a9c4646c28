//! What drafting costs on whatever computes, against what its memory allows.

mod check;
mod copy;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use super::cpu::CpuBackend;
use super::cuda;
use super::device::{Chosen, Device, Fallback, choose};
use super::error::ModelError;
use super::options::{ModelOptions, Precision};
use super::sample::DraftSampling;
use super::weights::ModelSource;
use crate::speculation::TokenId;
pub use check::Agreement;

/// Rounds before the first that is timed.
const WARM_UP: usize = 2;

/// What is measured at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Sequences that draft together.
    pub batch: usize,
    /// Tokens of each before its first draft.
    pub context: usize,
    /// Tokens that each drafts.
    pub length: usize,
}

/// Why a cell cannot be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The model has fewer positions.
    Positions {
        /// So many.
        limit: usize,
    },
    /// There is no memory for so many keys and values.
    Memory {
        /// Positions of all sequences that there is memory for.
        limit: usize,
    },
}

/// What drafting cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Microseconds for a token of all sequences together: from what the host asks to what it has, divided by the
    /// tokens of one sequence. The median of the rounds.
    pub micros_per_step: f64,
    /// Bytes of weights, keys and values that such a step has to read.
    pub bytes_per_step: f64,
    /// Those bytes in that time, as a share of the bytes that a copy within the same memory moves in it (read and
    /// written).
    pub share_of_copy: f64,
    /// Rounds that were timed.
    pub rounds: usize,
}

/// What a step has to read, and what memory gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::model) struct Traffic {
    /// Bytes of weights.
    pub(super) weights: f64,
    /// Bytes of a position's keys and values.
    pub(super) position: f64,
    /// Bytes that a second of copies reads and writes.
    pub(super) copy: f64,
}

/// A model, ready to be measured.
pub struct DraftBench {
    backend: Box<dyn Backend>,
    traffic: Traffic,
    device: Device,
    fallback: Option<Fallback>,
    rng: StdRng,
}

impl Cell {
    /// Pages of each sequence.
    fn pages(self) -> usize {
        (self.context + self.length).div_ceil(PAGE)
    }
}

/// Pages for the largest cell that does not exceed the model's positions, and for a comparison of so many positions.
fn pages_for(cells: &[Cell], compared: usize, max_positions: usize) -> usize {
    let possible = cells.iter().filter(|cell| cell.context + cell.length <= max_positions + 1);
    let largest = possible.map(|cell| cell.batch * cell.pages()).max().unwrap_or(0);
    largest.max(check::pages(compared, max_positions)).max(1)
}

impl DraftBench {
    /// Reads a model into memory, with room for what is to be measured: `cells`, and as many compared positions. Keys and
    /// values take `most_cache` bytes at most or, without it, 4 GiB on the CPU and what is free on a GPU. The cache of
    /// `options` is not used.
    ///
    /// # Errors
    /// Those of loading a model.
    pub fn open(
        source: &ModelSource,
        options: &ModelOptions,
        most_cache: Option<usize>,
        cells: &[Cell],
        compared: usize,
    ) -> Result<Self, ModelError> {
        let pages = pages_for(cells, compared, source.open()?.0.max_positions);
        let gpu = || {
            let (backend, traffic, name) = cuda::open_measured(source, options, pages, most_cache)?;
            Ok(((backend, traffic), name))
        };
        let cpu = || {
            let cache_bytes = most_cache.unwrap_or(ModelOptions::default().cache_bytes);
            let mut backend = CpuBackend::load(source, &ModelOptions { cache_bytes, ..options.clone() })?;
            backend.occupy(pages.min(backend.pages()));
            let (weights, position) = backend.bytes();
            let traffic = Traffic { weights, position, copy: copy::bandwidth(options.threads) };
            Ok((Box::new(backend) as Box<dyn Backend>, traffic))
        };
        let Chosen { backend: (backend, traffic), device, fallback } = choose(options.device, gpu, cpu)?;
        Ok(Self { backend, traffic, device, fallback, rng: StdRng::seed_from_u64(0) })
    }

    /// What computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Why it is not the GPU that is there, if it is not.
    #[must_use]
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// Bytes that a second of copies within the same memory reads and writes.
    #[must_use]
    pub fn copy_bandwidth(&self) -> f64 {
        self.traffic.copy
    }

    /// Bytes of weights that each step reads.
    #[must_use]
    pub fn weight_bytes(&self) -> f64 {
        self.traffic.weights
    }

    /// Why a cell cannot be measured, if it cannot.
    #[must_use]
    pub fn misfit(&self, cell: Cell) -> Option<Misfit> {
        let limit = self.backend.config().max_positions;
        // The last draft needs no position.
        if cell.context + cell.length > limit + 1 {
            return Some(Misfit::Positions { limit });
        }
        let limit = self.backend.pages() * PAGE;
        (cell.batch * cell.pages() > self.backend.pages()).then_some(Misfit::Memory { limit })
    }

    /// Times a cell's drafts `rounds` times, but not for much longer than `patience`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] if the cell does not fit, and those of a step.
    pub fn measure(&mut self, cell: Cell, rounds: usize, patience: Duration) -> Result<Measured, ModelError> {
        if let Some(misfit) = self.misfit(cell) {
            return Err(ModelError::Unsupported(format!("{cell:?} does not fit: {misfit:?}")));
        }
        let each = cell.pages();
        let tables: Vec<Vec<PageId>> =
            (0..cell.batch).map(|row| (row * each..(row + 1) * each).map(|page| page as PageId).collect()).collect();
        let begin = Instant::now();
        for _ in 0..WARM_UP {
            self.round(cell, &tables)?;
            if begin.elapsed() > patience / 2 {
                break;
            }
        }
        let mut times = Vec::with_capacity(rounds);
        while times.is_empty() || times.len() < rounds && begin.elapsed() < patience {
            times.push(self.round(cell, &tables)? / cell.length as f64);
        }
        times.sort_by(f64::total_cmp);
        let seconds = times[times.len() / 2];
        let Traffic { weights, position, copy } = self.traffic;
        // A step reads what is before it: one position more than the step before.
        let held = cell.context as f64 + (cell.length as f64 - 1.0) / 2.0;
        let bytes = weights + position * held * cell.batch as f64;
        Ok(Measured {
            micros_per_step: seconds * 1e6,
            bytes_per_step: bytes,
            share_of_copy: bytes / seconds / copy,
            rounds: times.len(),
        })
    }

    /// Seconds until all sequences have their drafts. What their pages hold does not matter to the time.
    fn round(&mut self, cell: Cell, tables: &[Vec<PageId>]) -> Result<f64, ModelError> {
        let sampling = DraftSampling::new(cell.length, 1.0);
        // Each sequence's drafts, and the token that it runs next.
        let mut states: Vec<(usize, [TokenId; 1])> = vec![(0, [1]); cell.batch];
        let start = Instant::now();
        while states.iter().any(|(drafted, _)| *drafted < cell.length) {
            let waiting = states.iter().zip(tables).filter(|((drafted, _), _)| *drafted < cell.length);
            let feeds: Vec<Feed<'_>> = waiting
                .map(|((drafted, token), pages)| Feed {
                    pages,
                    start: cell.context - 1 + drafted,
                    tokens: token,
                    then: Then::Draft { sampling: &sampling, at_most: cell.length - drafted },
                })
                .collect();
            let mut outcomes = self.backend.step(&feeds, &mut self.rng)?.into_iter();
            for (drafted, token) in states.iter_mut().filter(|(drafted, _)| *drafted < cell.length) {
                match outcomes.next() {
                    Some(Outcome::Drafts(drafts)) if !drafts.is_empty() => {
                        *drafted += drafts.len();
                        *token = [drafts[drafts.len() - 1].token];
                    }
                    _ => return Err(ModelError::NoFiniteLogit),
                }
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}
