//! The model on the CPU: its weights, the memory of its pages, and the part of the vocabulary that it drafts from.

use rand::rngs::StdRng;

use super::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use super::cache::{KvStore, PageShape};
use super::config::ModelConfig;
use super::error::ModelError;
use super::forward::Scratch;
use super::llama::{Layer, Llama};
use super::matrix::Matrix;
use super::options::ModelOptions;
use super::parallel::Threads;
use super::sample::{Row, draw};
use super::shortlist::Shortlist;
use super::weights::ModelSource;
use crate::speculation::TokenId;

/// Runs on threads of its own; one draft a step, so that rows join and leave between any two.
pub(super) struct CpuBackend {
    llama: Llama,
    threads: Threads,
    pages: usize,
    page_bytes: usize,
    store: KvStore,
    /// Absent where drafts are drawn from the whole vocabulary.
    shortlist: Option<Shortlist>,
    scratch: Scratch,
}

impl CpuBackend {
    /// Reads a model into memory. Takes seconds and blocks.
    ///
    /// # Errors
    /// Anything but [`ModelError::Stopped`] and the errors of a context.
    pub(super) fn load(source: &ModelSource, options: &ModelOptions) -> Result<Self, ModelError> {
        let llama = Llama::load(source, options.precision)?;
        let ModelConfig { layers, kv_heads, head_dim, .. } = llama.config;
        let shape = PageShape { layers, kv_heads, head_dim };
        Ok(Self {
            threads: Threads::new(options.threads)?,
            pages: options.pages(shape.bytes(options.precision))?,
            page_bytes: shape.bytes(options.precision),
            store: KvStore::new(shape, options.precision),
            shortlist: options.shortlist.and_then(|lasting| Shortlist::new(llama.head(), lasting)),
            scratch: Scratch::default(),
            llama,
        })
    }

    /// Has the system give the memory of so many pages now, as if they held something.
    pub(super) fn occupy(&mut self, pages: usize) {
        self.store.allocate(pages.saturating_sub(1) as PageId);
        self.store.occupy();
    }

    /// Bytes that a draft step reads: of weights, and of keys and values for each position.
    pub(super) fn bytes(&self) -> (f64, f64) {
        let layer = |layer: &Layer| {
            [&layer.qkv, &layer.output, &layer.gate_up, &layer.down].into_iter().map(Matrix::bytes).sum::<usize>()
        };
        let head = self.shortlist.as_ref().map_or(self.llama.head(), Shortlist::head);
        let weights = self.llama.layers.iter().map(layer).sum::<usize>() + head.bytes();
        (weights as f64, self.page_bytes as f64 / PAGE as f64)
    }

    /// Sees to it that there is memory for what the feeds write.
    fn allocate(&mut self, feeds: &[Feed<'_>]) {
        for feed in feeds {
            let end = feed.start + feed.tokens.len();
            feed.pages[feed.start / PAGE..end.div_ceil(PAGE)].iter().for_each(|page| self.store.allocate(*page));
        }
    }
}

impl Backend for CpuBackend {
    fn config(&self) -> &ModelConfig {
        &self.llama.config
    }

    fn pages(&self) -> usize {
        self.pages
    }

    fn learn(&mut self, ids: &[TokenId]) {
        if let Some(list) = &mut self.shortlist {
            ids.iter().for_each(|id| list.learn(*id, self.llama.head()));
        }
    }

    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError> {
        self.allocate(feeds);
        let whole = feeds.iter().any(|feed| matches!(feed.then, Then::Logits));
        let Self { llama, threads, store, shortlist, scratch, .. } = self;
        let list = shortlist.as_ref();
        let head = list.filter(|_| !whole).map_or(llama.head(), Shortlist::head);
        let logits = threads.run(|parallel| llama.forward(feeds, store, head, scratch, parallel));
        let mut rows = logits.chunks_exact(head.rows());
        let outcome = |feed: &Feed<'_>| {
            let sampling = match feed.then {
                Then::Nothing => return Outcome::Nothing,
                Then::Logits => return Outcome::Logits(rows.next().map_or_else(Vec::new, <[f32]>::to_vec)),
                Then::Draft { sampling, at_most } => {
                    debug_assert!(at_most > 0);
                    sampling
                }
            };
            let logits = rows.next().unwrap_or_default();
            let listed: Vec<f32>;
            let row = match list.map(Shortlist::ids) {
                None => Row { logits, ids: None },
                Some(ids) if whole => {
                    listed = ids.iter().map(|id| logits[*id as usize]).collect();
                    Row { logits: &listed, ids: Some(ids) }
                }
                ids => Row { logits, ids },
            };
            Outcome::Drafts(draw(row, sampling, rng).into_iter().collect())
        };
        Ok(feeds.iter().map(outcome).collect())
    }
}
