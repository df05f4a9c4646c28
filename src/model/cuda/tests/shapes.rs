//! Models that are small enough for the reference, with random weights.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::config::{Architecture, ModelConfig};
use crate::model::cuda::bench::{Extras, random};
use crate::model::cuda::weights::{Bf16, Weights};
use crate::model::kernels::rope::RopeScaling;
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
