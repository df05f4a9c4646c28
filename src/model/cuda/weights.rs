//! What the CUDA backend is made from: a model's weights in bfloat16, of a shape that the kernels take.

use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::weights::{Layer, Parts};

/// Columns that the kernels read at once.
const CHUNK: usize = 32;
/// Query heads that may share a key head.
const MAX_GROUP: usize = 8;
/// Elements of a head at most.
const MAX_HEAD_DIM: usize = 256;

/// The bits of a bfloat16.
pub(in crate::model) type Bf16 = u16;

/// A model in bfloat16; matrices are in rows.
pub(in crate::model) type Weights = Parts<Vec<Bf16>>;

/// One layer of it.
pub(in crate::model) type LayerWeights = Layer<Vec<Bf16>>;

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
        self.layers.iter().any(|layer| layer.head_norms.is_some())
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
