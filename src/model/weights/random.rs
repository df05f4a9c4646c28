//! Random weights in the shapes of known models, for benchmarks.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::TensorReader;
use crate::model::config::{Architecture, ModelConfig};
use crate::model::error::ModelError;
use crate::model::kernels::rope::RopeScaling;

/// A known model's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownShape {
    /// Qwen3-0.6B.
    Qwen3,
    /// Llama-3.2-1B.
    Llama1b,
    /// SmolLM2-135M.
    SmolLm2,
}

impl KnownShape {
    /// The configuration, as the model's own `config.json` has it but for the scaling of rotations.
    pub(in crate::model) fn config(self) -> ModelConfig {
        // Hidden, intermediate, layers, heads, key heads, elements of a head, vocabulary, positions.
        let (architecture, sizes, rope_theta) = match self {
            Self::Qwen3 => (Architecture::Qwen3, [1024, 3072, 28, 16, 8, 128, 151_936, 40_960], 1e6),
            Self::Llama1b => (Architecture::Llama, [2048, 8192, 16, 32, 8, 64, 128_256, 131_072], 5e5),
            Self::SmolLm2 => (Architecture::Llama, [576, 1536, 30, 9, 3, 64, 49_152, 8192], 1e5),
        };
        let [hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary, max_positions] = sizes;
        ModelConfig {
            architecture,
            vocabulary,
            hidden,
            intermediate,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_epsilon: 1e-6,
            max_positions,
            rope_theta,
            rope_scaling: RopeScaling::None,
            tied: Some(true),
        }
    }
}

/// A model's tensors, each of which depends on its name alone. Values are exact in bfloat16.
pub(super) struct RandomTensors {
    pub(super) architecture: Architecture,
}

impl TensorReader for RandomTensors {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
        let head_norm = name.contains("q_norm") || name.contains("k_norm");
        let absent = name.ends_with(".bias") && !self.architecture.has_biases()
            || head_norm && !self.architecture.has_head_norms()
            || name == "lm_head.weight";
        if absent {
            return Ok(None);
        }
        // Vectors are norms. A matrix keeps the residual stream's size.
        let (around, spread) = match shape {
            [_, columns] => (0.0, (3.0 / *columns as f32).sqrt()),
            _ => (1.0, 0.3),
        };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let mut rng = StdRng::seed_from_u64(hasher.finish());
        let mut value = || f32::from_bits((around + rng.random_range(-spread..spread)).to_bits() & 0xffff_0000);
        Ok(Some((0..shape.iter().product()).map(|_| value()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_the_same_whenever_it_is_read_and_another_than_the_next() {
        let mut tensors = RandomTensors { architecture: Architecture::Llama };
        let mut read = |name: &str| tensors.read(name, &[3, 64]).unwrap().unwrap();
        assert_eq!(read("a.weight"), read("a.weight"));
        assert_ne!(read("a.weight"), read("b.weight"));
        assert!(read("a.weight").iter().all(|value| value.to_bits() & 0xffff == 0 && *value != 0.0));
    }

    #[test]
    fn a_model_has_the_tensors_of_its_kind() {
        let has = |architecture, name: &str| RandomTensors { architecture }.read(name, &[64]).unwrap().is_some();
        let norm = "model.layers.0.self_attn.q_norm.weight";
        assert!(has(Architecture::Qwen3, norm) && !has(Architecture::Llama, norm));
        assert!(!has(Architecture::Llama, "model.layers.0.self_attn.q_proj.bias"));
    }
}
