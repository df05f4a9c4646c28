//! The CUDA backend: weights and pages on the device, and what a step runs there.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::batch::{self, Bucket, DRAWN, MOST_STEPS, Part};
use super::device::{Address, Device, Work};
use super::driver::Gpu;
use super::geometry::{LONG_PASS, Product, QUERIES, Width};
use super::passes::{LayerPlaces, Places, Planner};
use super::prefill;
use super::source::Shape;
use super::weights::{Bf16, Weights, check};
use crate::model::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Bytes that are uploaded at once when weights are.
const UPLOAD: usize = 8 << 20;
/// Bytes of free memory that are left to others.
const KEPT_BACK: usize = 32 << 20;

/// A model on a device.
pub(in crate::model) struct Engine<D: Device> {
    /// Draft passes, recorded when first wanted: a recording takes milliseconds, there are hundreds of buckets and
    /// few of them ever come up. Before the device, which they must not outlive.
    graphs: HashMap<Bucket, D::Graph>,
    device: D,
    planner: Planner,
    /// Pages for sequences; one more is for rows that go nowhere.
    pages: usize,
    /// Rows of a pass that only fills the cache, at most: [`LONG_PASS`] with a library for its products.
    longest: usize,
    /// The upload of a pass.
    packed: Vec<u8>,
}

impl<D: Device> Engine<D> {
    /// What the kernels are compiled for.
    pub(super) fn shape(weights: &Weights) -> Shape {
        Shape { config: weights.config.clone(), bias: weights.has_bias(), qk_norms: weights.has_qk_norms() }
    }

    /// Copies the weights to the device and plans its memory, once: keys and values get `cache` bytes, or what is free
    /// if that is less.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a shape that the kernels do not take; [`ModelError::GpuMemory`];
    /// [`ModelError::Cuda`].
    pub(super) fn new(mut device: D, weights: &Weights, cache: usize) -> Result<Self, ModelError> {
        check(&weights.config)?;
        let config = weights.config.clone();
        let machine = device.machine();
        let longest = match device.prepare(&prefill::shapes(&config, weights.has_bias())) {
            Ok(()) => LONG_PASS,
            Err(error) => {
                tracing::warn!(%error, "the draft model reads prompts {} tokens at a time", Width::MOST);
                Width::MOST
            }
        };
        let mut upload = Upload { device: &mut device };
        let layers = weights
            .layers
            .iter()
            .map(|layer| {
                let [query_norm, key_norm] = match &layer.head_norms {
                    Some(norms) => [upload.floats(&norms.query)?, upload.floats(&norms.key)?],
                    None => [Address::NULL; 2],
                };
                Ok(LayerPlaces {
                    attention_norm: upload.floats(&layer.attention_norm)?,
                    qkv: upload.halves(&layer.qkv)?,
                    qkv_bias: layer.qkv_bias.as_ref().map_or(Ok(Address::NULL), |bias| upload.floats(bias))?,
                    query_norm,
                    key_norm,
                    output: upload.halves(&layer.output)?,
                    mlp_norm: upload.floats(&layer.mlp_norm)?,
                    gate_up: upload.halves(&layer.gate_up)?,
                    down: upload.halves(&layer.down)?,
                })
            })
            .collect::<Result<_, ModelError>>()?;
        let embedding = upload.halves(&weights.embedding)?;
        let head = weights.head.as_ref().map_or(Ok(embedding), |head| upload.halves(head))?;
        let norm = upload.floats(&weights.norm)?;
        let frequencies = upload.floats(&weights.inverse_frequencies)?;

        let rows = Width::MOST;
        let qkv_width = config.query_width() + 2 * config.kv_width();
        let mut allocate = |bytes: usize| device.allocate(bytes);
        let long = if longest > rows { longest } else { 0 };
        let mut places = Places {
            embedding,
            head,
            norm,
            frequencies,
            layers,
            cache: Address::NULL,
            inputs: allocate(batch::most_bytes(longest, rows, config.max_positions))?,
            x: allocate(longest * config.hidden * size_of::<f32>())?,
            qkv: allocate(longest * qkv_width * size_of::<f32>())?,
            attended: allocate(longest * config.query_width() * size_of::<Bf16>())?,
            activated: allocate(longest * config.intermediate * size_of::<Bf16>())?,
            normed: allocate(long * config.hidden * size_of::<Bf16>())?,
            gated: allocate(long * 2 * config.intermediate * size_of::<f32>())?,
            logits: allocate(rows * config.vocabulary * size_of::<f32>())?,
            partials: allocate(Planner::partial_bytes(&config, &machine))?,
            attention_counters: allocate(rows * config.kv_heads * size_of::<u32>())?,
            sample_counters: allocate(rows * size_of::<u32>())?,
            found: allocate(Planner::found_bytes(&config))?,
            drawn: allocate(MOST_STEPS * rows * DRAWN)?,
        };
        let page = page_bytes(&config);
        let pages = (cache.min(device.free()?.saturating_sub(KEPT_BACK)) / page).saturating_sub(1);
        if pages == 0 {
            return Err(ModelError::GpuMemory("none is left for keys and values".into()));
        }
        places.cache = device.allocate((pages + 1) * page)?;
        let planner = Planner { config, machine, places };
        Ok(Self { device, planner, pages, longest, graphs: HashMap::new(), packed: Vec::new() })
    }

    #[cfg(test)]
    pub(super) fn device(&mut self) -> &mut D {
        &mut self.device
    }

    fn upload(&mut self) -> Result<(), ModelError> {
        self.device.upload(self.planner.places.inputs, &self.packed)
    }

    /// Bytes that a draft step reads: of weights, each once, and of keys and values for each position.
    pub(super) fn bytes(&self) -> (f64, f64) {
        let config = self.config();
        let weights = |product: Product| {
            let (rows, columns) = product.matrix(config);
            rows * columns * size_of::<Bf16>()
        };
        let layer: usize = [Product::Qkv, Product::Output, Product::GateUp, Product::Down].map(weights).iter().sum();
        let all = layer * config.layers + weights(Product::Head);
        (all as f64, page_bytes(config) as f64 / PAGE as f64)
    }

    /// Runs parts of at most [`Width::MOST`] rows into the cache.
    fn extend(&mut self, parts: &[Part<'_>], logits: bool) -> Result<(), ModelError> {
        let rows = parts.iter().map(|part| part.tokens.len()).sum();
        let runs = batch::runs(parts, QUERIES / self.config().group());
        let bucket = Bucket { rows, batch: parts.len(), steps: 0, several: true };
        let layout = batch::pack(parts, bucket, &runs, self.pages as PageId, &mut self.packed);
        self.upload()?;
        let launches = self.planner.extend(&layout, rows, runs.len(), logits.then_some(parts.len()));
        self.device.run(&launches)
    }

    /// Runs parts of at most [`LONG_PASS`] rows into the cache, by a library's products.
    fn prefill(&mut self, parts: &[Part<'_>], rows: usize) -> Result<(), ModelError> {
        let runs = batch::runs(parts, prefill::run_length(self.config()));
        let bucket = Bucket { rows, batch: parts.len(), steps: 0, several: true };
        let layout = batch::pack(parts, bucket, &runs, self.pages as PageId, &mut self.packed);
        self.upload()?;
        self.planner.prefill(&layout, rows, runs.len()).iter().try_for_each(|work| match work {
            Work::Kernels(launches) => self.device.run(launches),
            Work::Product(product) => self.device.multiply(product),
        })
    }

    /// Runs a pass into the cache: a long one only if it would be more than one of the others.
    fn read(&mut self, parts: &[Part<'_>], rows: usize) -> Result<(), ModelError> {
        match rows {
            0 => Ok(()),
            1..=Width::MOST => self.extend(parts, false),
            _ => self.prefill(parts, rows),
        }
    }

    /// Runs all tokens of the parts into the cache, in passes that are as full as can be.
    fn extend_all<'a>(&mut self, parts: impl Iterator<Item = Part<'a>>) -> Result<(), ModelError> {
        let (mut pass, mut rows) = (Vec::new(), 0);
        for mut part in parts {
            while !part.tokens.is_empty() {
                let (now, later) = part.tokens.split_at(part.tokens.len().min(self.longest - rows));
                pass.push(Part { tokens: now, sampling: None, uniforms: &[], ..part });
                rows += now.len();
                part = Part { start: part.start + now.len(), tokens: later, ..part };
                if rows == self.longest || pass.len() == Width::MOST {
                    self.read(&pass, rows)?;
                    (pass, rows) = (Vec::new(), 0);
                }
            }
        }
        self.read(&pass, rows)
    }

    /// The logits after the last token of each of at most [`Width::MOST`] parts.
    fn logits(&mut self, parts: Vec<Part<'_>>) -> Result<Vec<Vec<f32>>, ModelError> {
        self.extend_all(parts.iter().map(before_last))?;
        let last: Vec<Part<'_>> = parts.iter().map(last_only).collect();
        self.extend(&last, true)?;
        let width = self.config().vocabulary;
        let mut bytes = vec![0; parts.len() * width * size_of::<f32>()];
        self.device.download(self.planner.places.logits, &mut bytes)?;
        let value = |word: &[u8]| f32::from_bits(word.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte)));
        Ok(bytes.chunks_exact(4 * width).map(|row| row.chunks_exact(4).map(value).collect()).collect())
    }

    /// Drafts `steps` tokens after each of at most [`Width::MOST`] parts: one graph. Fewer only where no logit was
    /// finite.
    fn draft(&mut self, parts: Vec<Part<'_>>, steps: usize) -> Result<Vec<Vec<DraftedToken>>, ModelError> {
        let mut rows: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let mut parts = parts;
        if rows > Width::MOST {
            self.extend_all(parts.iter().map(before_last))?;
            parts = parts.iter().map(last_only).collect();
            rows = parts.len();
        }
        let bucket = Bucket::of(rows, parts.len(), steps);
        batch::pack(&parts, bucket, &[], self.pages as PageId, &mut self.packed);
        self.upload()?;
        if !self.graphs.contains_key(&bucket) {
            let graph = self.device.record(self.planner.draft(bucket))?;
            self.graphs.insert(bucket, graph);
        }
        if let Some(graph) = self.graphs.get(&bucket) {
            self.device.replay(graph)?;
        }
        let mut bytes = vec![0; steps * bucket.batch * DRAWN];
        self.device.download(self.planner.places.drawn, &mut bytes)?;
        let (drawn, _) = bytes.as_chunks::<DRAWN>();
        Ok(parts
            .iter()
            .enumerate()
            .filter_map(|(index, part)| Some((index, part.sampling?)))
            .map(|(index, sampling)| {
                (0..steps).map_while(|step| batch::unpack(&drawn[step * bucket.batch + index], sampling)).collect()
            })
            .collect())
    }
}

impl Engine<Gpu> {
    /// Bytes that a second of copies from one half of the KV cache to the other reads and writes: `count` copies of at
    /// most `bytes`.
    ///
    /// # Errors
    /// [`ModelError::Cuda`].
    pub(super) fn copy_bandwidth(&mut self, bytes: usize, count: usize) -> Result<f64, ModelError> {
        let cache = self.planner.places.cache;
        let bytes = bytes.min((self.pages + 1) * page_bytes(self.config()) / 2);
        let seconds = self.device.time_copies(cache, cache.plus(bytes), bytes, count)?;
        Ok(2.0 * (bytes * count) as f64 / seconds)
    }
}

/// All tokens but the last.
fn before_last<'a>(part: &Part<'a>) -> Part<'a> {
    let tokens = part.tokens.split_last().map_or(part.tokens, |(_, before)| before);
    Part { tokens, sampling: None, ..*part }
}

/// The last token alone.
fn last_only<'a>(part: &Part<'a>) -> Part<'a> {
    let before = part.tokens.len() - 1;
    Part { start: part.start + before, tokens: &part.tokens[before..], ..*part }
}

/// Bytes of a page of the KV cache.
pub(in crate::model) fn page_bytes(config: &ModelConfig) -> usize {
    2 * PAGE * config.kv_width() * config.layers * size_of::<Bf16>()
}

/// What a feed runs.
fn part<'a>(feed: &Feed<'a>) -> Part<'a> {
    Part { pages: feed.pages, start: feed.start, tokens: feed.tokens, sampling: None, uniforms: &[] }
}

/// A feed that drafts: its number, and what is drawn.
struct Drafting<'a> {
    index: usize,
    sampling: &'a DraftSampling,
    at_most: usize,
}

impl<D: Device> Backend for Engine<D> {
    fn config(&self) -> &ModelConfig {
        &self.planner.config
    }

    fn pages(&self) -> usize {
        self.pages
    }

    fn rows_at_once(&self) -> usize {
        self.longest
    }

    fn learn(&mut self, _ids: &[TokenId]) {}

    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError> {
        let mut outcomes: Vec<Outcome> = feeds.iter().map(|_| Outcome::Nothing).collect();
        let (mut asked, mut drafting) = (Vec::new(), Vec::new());
        for (index, feed) in feeds.iter().enumerate() {
            match feed.then {
                Then::Nothing => {}
                Then::Logits => asked.push(index),
                Then::Draft { sampling, at_most } => drafting.push(Drafting { index, sampling, at_most }),
            }
        }
        self.extend_all(feeds.iter().filter(|feed| matches!(feed.then, Then::Nothing)).map(part))?;
        for asked in asked.chunks(Width::MOST) {
            let logits = self.logits(asked.iter().map(|index| part(&feeds[*index])).collect())?;
            for (index, logits) in asked.iter().zip(logits) {
                outcomes[*index] = Outcome::Logits(logits);
            }
        }
        for drafting in drafting.chunks(Width::MOST) {
            let steps = drafting.iter().map(|draft| draft.at_most).max().unwrap_or(1).clamp(1, MOST_STEPS);
            let uniforms: Vec<f64> = (0..drafting.len() * steps).map(|_| rng.random()).collect();
            let parts = drafting
                .iter()
                .zip(uniforms.chunks_exact(steps))
                .map(|(draft, uniforms)| Part { sampling: Some(draft.sampling), uniforms, ..part(&feeds[draft.index]) })
                .collect();
            for (draft, mut drafts) in drafting.iter().zip(self.draft(parts, steps)?) {
                drafts.truncate(draft.at_most.max(1));
                outcomes[draft.index] = Outcome::Drafts(drafts);
            }
        }
        Ok(outcomes)
    }
}

/// Brings weights to the device, a piece at a time.
struct Upload<'a, D: Device> {
    device: &'a mut D,
}

impl<D: Device> Upload<'_, D> {
    fn halves(&mut self, values: &[Bf16]) -> Result<Address, ModelError> {
        self.send(values, |value| value.to_le_bytes())
    }

    fn floats(&mut self, values: &[f32]) -> Result<Address, ModelError> {
        self.send(values, |value| value.to_le_bytes())
    }

    fn send<T, const N: usize>(&mut self, values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Result<Address, ModelError> {
        let place = self.device.allocate(values.len() * N)?;
        for (index, piece) in values.chunks(UPLOAD / N).enumerate() {
            let piece: Vec<u8> = piece.iter().flat_map(&bytes).collect();
            self.device.upload(place.plus(index * UPLOAD), &piece)?;
        }
        Ok(place)
    }
}
