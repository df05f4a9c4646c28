//! Models that are small enough for the reference, with random weights.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::config::{Architecture, ModelConfig};
use crate::model::cuda::weights::{Bf16, LayerWeights, Weights};
use crate::model::kernels::rope::{RopeScaling, inverse_frequencies};
use crate::model::weights::HeadNorms;
use crate::speculation::TokenId;

fn with(sizes: [usize; 7], vocabulary: usize, extras: Extras) -> Weights {
    let [hidden, intermediate, layers, heads, kv_heads, head_dim, max_positions] = sizes;
    let config = ModelConfig {
        // The kernels go by the weights that there are.
        architecture: Architecture::Llama,
        vocabulary,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim,
        rms_epsilon: 1e-6,
        max_positions,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: None,
    };
    random(config, extras, &mut StdRng::seed_from_u64(3))
}

/// Two heads share a key head; the vocabulary ends within a tile.
pub(in crate::model::cuda) fn tiny_llama() -> Weights {
    with([64, 96, 2, 4, 2, 32, 1024], 1101, Extras::default())
}

/// Biases; seven heads share the only key head; a head of its own.
pub(in crate::model::cuda) fn tiny_qwen2() -> Weights {
    with([96, 160, 2, 7, 1, 64, 1024], 500, Extras { biases: true, untied: true, ..Extras::default() })
}

/// Norms of queries and keys; heads are wider than the hidden state together; more columns than a round takes, and
/// than fit in shared memory for 64 rows.
pub(in crate::model::cuda) fn tiny_qwen3() -> Weights {
    with([320, 544, 2, 4, 2, 128, 1024], 1030, Extras { head_norms: true, ..Extras::default() })
}

/// A model of Qwen3's kind, large enough for a GPU to be busy and small enough for the reference.
pub(super) fn middling() -> Weights {
    with([512, 1536, 8, 8, 4, 128, 4096], 32_000, Extras { head_norms: true, untied: true, ..Extras::default() })
}

/// Ids that repeat after a while, all in the vocabulary.
pub(in crate::model::cuda) fn tokens(count: usize, seed: u64, config: &ModelConfig) -> Vec<TokenId> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..config.vocabulary as TokenId)).collect()
}

pub(super) fn widen(half: Bf16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
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
