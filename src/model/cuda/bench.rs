//! What drafting costs on a GPU, against what its memory allows.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::driver::Gpu;
use super::engine::{Engine, page_bytes};
use super::geometry::Product;
use super::libraries::CudaOptions;
use super::weights::{Bf16, LayerWeights, Weights};
use crate::model::backend::{Backend as _, Feed, Outcome, PAGE, PageId, Then};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::error::ModelError;
use crate::model::kernels::rope::{RopeScaling, inverse_frequencies};
use crate::model::sample::DraftSampling;
use crate::model::weights::{HeadNorms, ModelSource};

/// Bytes of a copy that is timed, and how often.
const COPY: usize = 512 << 20;
const COPIES: usize = 20;
/// Launches before the first that is timed.
const WARM_UP: usize = 3;

/// A known model's shape, to be filled with random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownShape {
    /// Qwen3-0.6B.
    Qwen3,
    /// Llama-3.2-1B.
    Llama1b,
    /// SmolLM2-135M.
    SmolLm2,
}

/// Which model is measured.
#[derive(Debug, Clone, Copy)]
pub enum BenchModel<'a> {
    /// Random weights.
    Shape(KnownShape),
    /// A model's own.
    Files(&'a ModelSource),
}

/// What drafting cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Microseconds for a draft step of all sequences: from what the host asks to what it has, divided by the steps.
    /// The median of the rounds.
    pub micros_per_step: f64,
    /// Bytes of weights, keys and values that a step has to read.
    pub bytes_per_step: f64,
    /// Those bytes in that time, as a share of the bytes that a copy within the GPU's memory moves in it (read and
    /// written).
    pub share_of_copy: f64,
}

/// A model of random weights on a GPU.
pub struct CudaBench {
    engine: Engine<Gpu>,
    rng: StdRng,
    /// Bytes that a copy reads and writes in a second.
    copy_bandwidth: f64,
}

impl CudaBench {
    /// Puts a model on a GPU, with room for `positions` in all, and times copies.
    ///
    /// # Errors
    /// [`ModelError::Cuda`].
    pub fn open(model: BenchModel<'_>, positions: usize, options: &CudaOptions) -> Result<Self, ModelError> {
        let mut rng = StdRng::seed_from_u64(0);
        let weights = match model {
            BenchModel::Files(source) => Weights::load(source)?,
            BenchModel::Shape(shape) => {
                let (config, head_norms) = shape.config();
                random(config, Extras { head_norms, ..Extras::default() }, &mut rng)
            }
        };
        let gpu = Gpu::open(options, Engine::<Gpu>::shape(&weights))?;
        // Two places of a timed copy fit in it, too.
        let cache =
            ((positions.div_ceil(PAGE) + 1) * page_bytes(&weights.config)).max(2 * COPY + page_bytes(&weights.config));
        let mut engine = Engine::new(gpu, &weights, cache)?;
        let copy_bandwidth = engine.copy_bandwidth(COPY, COPIES)?;
        Ok(Self { engine, rng, copy_bandwidth })
    }

    /// Bytes that a copy within the GPU's memory reads and writes in a second.
    #[must_use]
    pub fn copy_bandwidth(&self) -> f64 {
        self.copy_bandwidth
    }

    /// Drafts `steps` tokens for `batch` sequences after `context` tokens each, `rounds` times.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] if so many positions do not fit; [`ModelError::Cuda`].
    pub fn measure(
        &mut self,
        batch: usize,
        context: usize,
        steps: usize,
        rounds: usize,
    ) -> Result<Measured, ModelError> {
        let each = (context + steps).div_ceil(PAGE);
        if batch * each > self.engine.pages() {
            return Err(ModelError::Unsupported(format!("{batch} contexts of {context} tokens do not fit")));
        }
        let sampling = DraftSampling::new(steps, 1.0);
        // What the pages hold does not matter to the time; they begin as zeros.
        let tables: Vec<Vec<PageId>> =
            (0..batch).map(|row| (row * each..(row + 1) * each).map(|page| page as PageId).collect()).collect();
        let mut times = Vec::with_capacity(rounds);
        for round in 0..WARM_UP + rounds.max(1) {
            let feeds: Vec<Feed<'_>> = tables
                .iter()
                .map(|pages| Feed {
                    pages,
                    start: context - 1,
                    tokens: &[1],
                    then: Then::Draft { sampling: &sampling, at_most: steps },
                })
                .collect();
            let start = Instant::now();
            let outcomes = self.engine.step(&feeds, &mut self.rng)?;
            let elapsed = start.elapsed().as_secs_f64();
            let drafted = |outcome: &Outcome| matches!(outcome, Outcome::Drafts(drafts) if drafts.len() == steps);
            if !outcomes.iter().all(drafted) {
                return Err(ModelError::Cuda("a step gave another number of drafts than asked for".into()));
            }
            if round >= WARM_UP {
                times.push(elapsed / steps as f64);
            }
        }
        times.sort_by(f64::total_cmp);
        let seconds = times[times.len() / 2];
        let bytes = bytes_per_step(self.engine.config(), batch, context as f64 + (steps as f64 - 1.0) / 2.0);
        Ok(Measured {
            micros_per_step: seconds * 1e6,
            bytes_per_step: bytes,
            share_of_copy: bytes / seconds / self.copy_bandwidth,
        })
    }
}

/// Bytes that a step reads at least: every weight once, and the keys and values of each sequence.
fn bytes_per_step(config: &ModelConfig, batch: usize, context: f64) -> f64 {
    let weights = |product: Product| {
        let (rows, columns) = product.matrix(config);
        (rows * columns * size_of::<Bf16>()) as f64
    };
    let layer: f64 = [Product::Qkv, Product::Output, Product::GateUp, Product::Down].map(weights).iter().sum();
    let cache = page_bytes(config) as f64 / PAGE as f64 * context;
    layer * config.layers as f64 + weights(Product::Head) + cache * batch as f64
}

impl KnownShape {
    /// The configuration, and whether queries and keys are normed.
    pub(super) fn config(self) -> (ModelConfig, bool) {
        // Hidden, intermediate, layers, heads, key heads, elements of a head, vocabulary.
        let (sizes, qk_norms) = match self {
            Self::Qwen3 => ([1024, 3072, 28, 16, 8, 128, 151_936], true),
            Self::Llama1b => ([2048, 8192, 16, 32, 8, 64, 128_256], false),
            Self::SmolLm2 => ([576, 1536, 30, 9, 3, 64, 49_152], false),
        };
        let [hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary] = sizes;
        let config = ModelConfig {
            architecture: if qk_norms { Architecture::Qwen3 } else { Architecture::Llama },
            vocabulary,
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_epsilon: 1e-6,
            max_positions: 32_768,
            rope_theta: 1e6,
            rope_scaling: RopeScaling::None,
            tied: Some(true),
        };
        (config, qk_norms)
    }
}

/// What a model has besides what all have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extras {
    /// Biases of queries, keys and values.
    pub(super) biases: bool,
    /// Norms of the heads of queries and keys.
    pub(super) head_norms: bool,
    /// A head of its own.
    pub(super) untied: bool,
}

/// Random weights that keep the residual stream's size from layer to layer.
pub(super) fn random(config: ModelConfig, extras: Extras, rng: &mut StdRng) -> Weights {
    // Apart, so that what a model has besides leaves the rest as it is.
    let mut more = StdRng::seed_from_u64(4);
    let mut halves = |rows: usize, columns: usize| -> Vec<Bf16> {
        let spread = (3.0 / columns as f32).sqrt();
        (0..rows * columns).map(|_| (rng.random_range(-spread..spread).to_bits() >> 16) as Bf16).collect()
    };
    let mut floats = |count: usize, around: f32| -> Vec<f32> {
        (0..count).map(|_| around + more.random_range(-0.3..0.3f32)).collect()
    };
    let ModelConfig { vocabulary, hidden, intermediate, head_dim, .. } = config;
    let qkv = config.query_width() + 2 * config.kv_width();
    Weights {
        embedding: halves(vocabulary, hidden),
        head: extras.untied.then(|| halves(vocabulary, hidden)),
        layers: (0..config.layers)
            .map(|_| LayerWeights {
                attention_norm: floats(hidden, 1.0),
                qkv: halves(qkv, hidden),
                qkv_bias: extras.biases.then(|| floats(qkv, 0.0)),
                head_norms: extras
                    .head_norms
                    .then(|| HeadNorms { query: floats(head_dim, 1.0), key: floats(head_dim, 1.0) }),
                output: halves(hidden, config.query_width()),
                mlp_norm: floats(hidden, 1.0),
                gate_up: halves(2 * intermediate, hidden),
                down: halves(hidden, intermediate),
            })
            .collect(),
        norm: floats(hidden, 1.0),
        inverse_frequencies: inverse_frequencies(head_dim, config.rope_theta, &config.rope_scaling),
        config,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_qwen3_reads_its_weights_and_its_context() {
        let (config, _) = KnownShape::Qwen3.config();
        let empty = bytes_per_step(&config, 1, 0.0);
        // 596 million weights of two bytes, less a few norms.
        assert!((empty / 2.0 / 596e6 - 1.0).abs() < 1e-3, "{empty}");
        // Eight key heads of 128 elements, keys and values, two bytes, 28 layers.
        assert_eq!(bytes_per_step(&config, 4, 100.0) - empty, 400.0 * 8.0 * 128.0 * 4.0 * 28.0);
    }
}
