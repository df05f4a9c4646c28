//! The shape of a draft model, whatever file it is told by.

use super::error::ModelError;
use super::kernels::rope::RopeScaling;

/// The kinds of models that are implemented. All are Llama (Touvron et al. 2023, arXiv:2302.13971) with grouped queries
/// (Llama 2, arXiv:2307.09288), but for what the methods tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    /// Qwen2 and Qwen2.5 (arXiv:2412.15115).
    Qwen2,
    /// Qwen3 (arXiv:2505.09388).
    Qwen3,
}

impl Architecture {
    /// By the name of transformers' class, its `model_type`, or llama.cpp's name, which is the same as that.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for any other.
    pub(super) fn named(name: Option<&str>) -> Result<Self, ModelError> {
        match name {
            Some("LlamaForCausalLM" | "llama") => Ok(Self::Llama),
            Some("Qwen2ForCausalLM" | "qwen2") => Ok(Self::Qwen2),
            Some("Qwen3ForCausalLM" | "qwen3") => Ok(Self::Qwen3),
            other => Err(ModelError::Unsupported(format!(
                "only the architectures Llama, Qwen2 and Qwen3 are implemented, not {}",
                other.unwrap_or("an unnamed one")
            ))),
        }
    }

    /// Whether queries, keys and values have bias terms.
    pub(super) fn has_biases(self) -> bool {
        self == Self::Qwen2
    }

    /// Whether each head of queries and of keys is normalised before it is rotated.
    pub(super) fn has_head_norms(self) -> bool {
        self == Self::Qwen3
    }
}

/// The shape of a draft model; counts are of elements, not bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelConfig {
    pub(super) architecture: Architecture,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Not always `hidden / heads`.
    pub(super) head_dim: usize,
    pub(super) rms_epsilon: f32,
    pub(super) max_positions: usize,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: RopeScaling,
    /// Whether the embedding serves as the output matrix; `None`: it does if there is no output matrix.
    pub(super) tied: Option<bool>,
}

impl ModelConfig {
    /// Width of all query heads together.
    pub(super) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub(super) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads that share one key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Refuses what would divide by zero or cannot be cut into heads.
    pub(super) fn check(self) -> Result<Self, ModelError> {
        let counts = [self.vocabulary, self.hidden, self.intermediate, self.layers, self.heads, self.kv_heads];
        if counts.contains(&0) || self.max_positions == 0 {
            return Err(ModelError::Unsupported("its configuration has a size of zero".into()));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return Err(ModelError::Unsupported(format!("{heads} heads do not share {kv_heads} key heads evenly")));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::Unsupported(format!("a head of {} elements cannot be rotated", self.head_dim)));
        }
        Ok(self)
    }
}
