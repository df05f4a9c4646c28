//! From a model's files to a backend that has run on the GPU once: what cannot be found, compiled, held or run there is
//! known before anyone relies on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::device::Device as _;
use super::driver::{Gpu, find};
use super::engine::{Engine, page_bytes};
use super::geometry::Width;
use super::weights::{Weights, check};
use crate::model::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use crate::model::bench::Traffic;
use crate::model::error::ModelError;
use crate::model::options::ModelOptions;
use crate::model::sample::DraftSampling;
use crate::model::weights::ModelSource;

/// Bytes of a copy that is timed, and how often.
const COPY: usize = 512 << 20;
const COPIES: usize = 20;

/// With fewer positions left for keys and values than this, and than the model has, a GPU is too full to be of use.
const ENOUGH: usize = 4096;

/// Puts a model on a GPU, and says what the GPU is called. Takes seconds, and longer where its kernels are not compiled yet.
///
/// # Errors
/// Those of the files, and those that [`ModelError::gpu_fault`] names.
pub(in crate::model) fn open(
    source: &ModelSource,
    options: &ModelOptions,
) -> Result<(Box<dyn Backend>, String), ModelError> {
    guarded(|| open_engine(source, options).map(|(engine, name)| (Box::new(engine) as Box<dyn Backend>, name)))
}

/// The same with `pages` of keys and values if they fit into `most_cache` bytes and what is free, and what a step reads.
///
/// # Errors
/// Those of [`open`].
pub(in crate::model) fn open_measured(
    source: &ModelSource,
    options: &ModelOptions,
    pages: usize,
    most_cache: Option<usize>,
) -> Result<(Box<dyn Backend>, Traffic, String), ModelError> {
    guarded(|| {
        let page = page_bytes(&source.open()?.0);
        let wanted = (pages * page).min(most_cache.unwrap_or(usize::MAX));
        // Two places of a timed copy fit in it, too.
        let options = ModelOptions { cache_bytes: wanted.max(2 * COPY), ..options.clone() };
        let (mut engine, name) = open_engine(source, &options)?;
        let (weights, position) = engine.bytes();
        let traffic = Traffic { weights, position, copy: engine.copy_bandwidth(COPY, COPIES)? };
        Ok((Box::new(engine) as Box<dyn Backend>, traffic, name))
    })
}

/// Bindings panic where a library lacks a function.
fn guarded<R>(open: impl FnOnce() -> Result<R, ModelError>) -> Result<R, ModelError> {
    let missing = |_| Err(ModelError::Cuda("its libraries are not of the version that is needed".into()));
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(missing)
}

fn open_engine(source: &ModelSource, options: &ModelOptions) -> Result<(Engine<Gpu>, String), ModelError> {
    // Before the weights are read, which takes seconds.
    let name = find(&options.cuda)?.name;
    check(&source.open()?.0)?;
    let weights = Weights::load(source)?;
    let page = page_bytes(&weights.config);
    let wanted = options.pages(page)?;

    let gpu = Gpu::open(&options.cuda, Engine::<Gpu>::shape(&weights))?;
    let (needed, free) = (weights.bytes(), gpu.free()?);
    if needed > free {
        let text = format!("the weights take {} MiB, and {} MiB are free", needed >> 20, free >> 20);
        return Err(ModelError::GpuMemory(text));
    }
    // One page is for rows that go nowhere.
    let mut engine = Engine::new(gpu, &weights, options.cache_bytes.saturating_add(page))?;
    let positions = engine.pages() * PAGE;
    if engine.pages() < wanted {
        if positions < ENOUGH.min(weights.config.max_positions) {
            let text = format!("keys and values of {positions} tokens fit beside the weights");
            return Err(ModelError::GpuMemory(text));
        }
        tracing::warn!(positions, wanted = wanted * PAGE, "the GPU has less free memory than the cache may take");
    }
    try_out(&mut engine)?;
    Ok((engine, name))
}

/// Runs a pass of each width and a draft, whose token nobody needs.
fn try_out(engine: &mut impl Backend) -> Result<(), ModelError> {
    let mut rng = StdRng::seed_from_u64(0);
    let most = engine.config().max_positions.min(engine.pages() * PAGE);
    let pages: Vec<PageId> = (0..Width::MOST.min(most).div_ceil(PAGE) as PageId).collect();
    for rows in [8, 16, 32, Width::MOST].map(|rows| rows.min(most)) {
        let then = Then::Nothing;
        engine.step(&[Feed { pages: &pages, start: 0, tokens: &vec![0; rows], then }], &mut rng)?;
    }
    let then = Then::Draft { sampling: &DraftSampling::new(1, 1.0), at_most: 1 };
    let outcomes = engine.step(&[Feed { pages: &pages, start: 0, tokens: &[0], then }], &mut rng)?;
    match outcomes.as_slice() {
        [Outcome::Drafts(drafts)] if !drafts.is_empty() => Ok(()),
        _ => Err(ModelError::NoFiniteLogit),
    }
}
