//! Models: the shapes of known ones, and tiny ones with random weights.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::config::{Architecture, ModelConfig};
use crate::model::cuda::weights::{Bf16, LayerWeights, Weights};
use crate::model::kernels::rope::{RopeScaling, inverse_frequencies};
use crate::speculation::TokenId;

fn config(sizes: [usize; 7], vocabulary: usize) -> ModelConfig {
    let [hidden, intermediate, layers, heads, kv_heads, head_dim, max_positions] = sizes;
    ModelConfig {
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
    }
}

/// Qwen3-0.6B.
pub(in crate::model::cuda) fn qwen3() -> ModelConfig {
    config([1024, 3072, 28, 16, 8, 128, 40_960], 151_936)
}

/// Llama-3.2-1B.
pub(in crate::model::cuda) fn llama_1b() -> ModelConfig {
    config([2048, 8192, 16, 32, 8, 64, 131_072], 128_256)
}

/// SmolLM2-135M.
pub(in crate::model::cuda) fn smollm2() -> ModelConfig {
    config([576, 1536, 30, 9, 3, 64, 8192], 49_152)
}

/// Two heads share a key head; the vocabulary ends within a tile.
pub(in crate::model::cuda) fn tiny_llama() -> Weights {
    random(config([64, 96, 2, 4, 2, 32, 512], 1101), false, false, false)
}

/// Biases; seven heads share the only key head; a head of its own.
pub(in crate::model::cuda) fn tiny_qwen2() -> Weights {
    random(config([96, 160, 2, 7, 1, 64, 512], 500), true, false, true)
}

/// Norms of queries and keys; heads are wider than the hidden state together; more columns than a round takes, and
/// than fit in shared memory for 64 rows.
pub(in crate::model::cuda) fn tiny_qwen3() -> Weights {
    random(config([320, 544, 2, 4, 2, 128, 512], 1030), false, true, false)
}

/// A model of Qwen3's kind, large enough for a GPU to be busy and small enough for the reference.
pub(super) fn middling() -> Weights {
    random(config([512, 1536, 8, 8, 4, 128, 4096], 32_000), false, true, true)
}

/// Ids that repeat after a while, all in the vocabulary.
pub(in crate::model::cuda) fn tokens(count: usize, seed: u64, config: &ModelConfig) -> Vec<TokenId> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..config.vocabulary as TokenId)).collect()
}

pub(super) fn widen(half: Bf16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn random(config: ModelConfig, bias: bool, qk_norms: bool, untied: bool) -> Weights {
    let mut rng = StdRng::seed_from_u64(3);
    let mut halves = |rows: usize, columns: usize| -> Vec<Bf16> {
        // Keeps the residual stream's size from layer to layer.
        let spread = (3.0 / columns as f32).sqrt();
        (0..rows * columns).map(|_| (rng.random_range(-spread..spread).to_bits() >> 16) as Bf16).collect()
    };
    let mut more = StdRng::seed_from_u64(4);
    let mut floats = |count: usize, around: f32| -> Vec<f32> {
        (0..count).map(|_| around + more.random_range(-0.3..0.3f32)).collect()
    };
    let ModelConfig { vocabulary, hidden, intermediate, head_dim, .. } = config;
    let (query, qkv) = (config.query_width(), config.query_width() + 2 * config.kv_width());
    Weights {
        embedding: halves(vocabulary, hidden),
        head: untied.then(|| halves(vocabulary, hidden)),
        layers: (0..config.layers)
            .map(|_| LayerWeights {
                attention_norm: floats(hidden, 1.0),
                qkv: halves(qkv, hidden),
                qkv_bias: bias.then(|| floats(qkv, 0.0)),
                qk_norms: qk_norms.then(|| [floats(head_dim, 1.0), floats(head_dim, 1.0)]),
                output: halves(hidden, query),
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
