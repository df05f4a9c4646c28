//! What the CUDA backend is made from: a model's shape and its weights as Hugging Face stores them.

use crate::model::config::ModelConfig;
use crate::model::error::ModelError;

/// Columns that the kernels read at once.
const CHUNK: usize = 32;
/// Query heads that may share a key head.
const MAX_GROUP: usize = 8;
/// Elements of a head at most.
const MAX_HEAD_DIM: usize = 256;

/// The bits of a bfloat16.
pub(in crate::model) type Bf16 = u16;

/// A model in bfloat16; matrices are [outputs, inputs] in rows, vectors in float32.
pub(in crate::model) struct Weights {
    pub(in crate::model) config: ModelConfig,
    /// [vocabulary, hidden].
    pub(in crate::model) embedding: Vec<Bf16>,
    /// [vocabulary, hidden]; absent when the embedding serves for it.
    pub(in crate::model) head: Option<Vec<Bf16>>,
    pub(in crate::model) layers: Vec<LayerWeights>,
    /// [hidden].
    pub(in crate::model) norm: Vec<f32>,
    /// Radians per position, [head_dim / 2].
    pub(in crate::model) inverse_frequencies: Vec<f32>,
}

/// One layer; the matrices that read the same input are stacked.
pub(in crate::model) struct LayerWeights {
    /// [hidden].
    pub(in crate::model) attention_norm: Vec<f32>,
    /// Query, key, value: [query_width + 2 · kv_width, hidden].
    pub(in crate::model) qkv: Vec<Bf16>,
    /// [query_width + 2 · kv_width] (Qwen2).
    pub(in crate::model) qkv_bias: Option<Vec<f32>>,
    /// Norms of each query head and each key head, [head_dim] (Qwen3).
    pub(in crate::model) qk_norms: Option<[Vec<f32>; 2]>,
    /// [hidden, query_width].
    pub(in crate::model) output: Vec<Bf16>,
    /// [hidden].
    pub(in crate::model) mlp_norm: Vec<f32>,
    /// Gate, up: [2 · intermediate, hidden].
    pub(in crate::model) gate_up: Vec<Bf16>,
    /// [hidden, intermediate].
    pub(in crate::model) down: Vec<Bf16>,
}

impl Weights {
    pub(super) fn has_bias(&self) -> bool {
        self.layers.iter().any(|layer| layer.qkv_bias.is_some())
    }

    /// Bytes of the matrices: all but a few norms and biases.
    pub(super) fn bytes(&self) -> usize {
        let layer = |layer: &LayerWeights| {
            [&layer.qkv, &layer.output, &layer.gate_up, &layer.down].into_iter().map(Vec::len).sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(layer).sum();
        size_of::<Bf16>() * (self.embedding.len() + self.head.as_ref().map_or(0, Vec::len) + layers)
    }

    pub(super) fn has_qk_norms(&self) -> bool {
        self.layers.iter().any(|layer| layer.qk_norms.is_some())
    }
}

/// Refuses shapes that the kernels do not take.
///
/// # Errors
/// [`ModelError::Unsupported`].
pub(super) fn check(config: &ModelConfig) -> Result<(), ModelError> {
    let refuse = |what: String| Err(ModelError::Unsupported(format!("{what}: not on a GPU")));
    for (name, width) in [("hidden", config.hidden), ("intermediate", config.intermediate)] {
        if !width.is_multiple_of(CHUNK) {
            return refuse(format!("{name} width {width} is not a multiple of {CHUNK}"));
        }
    }
    if !config.head_dim.is_multiple_of(CHUNK) || config.head_dim > MAX_HEAD_DIM {
        return refuse(format!("heads of {} elements", config.head_dim));
    }
    if config.group() > MAX_GROUP {
        return refuse(format!("{} query heads for each key head", config.group()));
    }
    Ok(())
}
