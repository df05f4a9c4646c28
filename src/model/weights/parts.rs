//! A model's tensors by what they are for. The one place that knows their names, which the model has, and which are
//! stacked: what reads the same input becomes one matrix.

use super::{ModelSource, TensorReader};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::kernels::rope::inverse_frequencies;

/// A model of any [`Architecture`](crate::model::config::Architecture): a Llama, with what the others add to it. Its
/// matrices are [outputs, inputs], held as an `M`; vectors are in float32.
pub(in crate::model) struct Parts<M> {
    pub(in crate::model) config: ModelConfig,
    /// [vocabulary, hidden].
    pub(in crate::model) embedding: M,
    /// [vocabulary, hidden]; absent when the embedding serves for it.
    pub(in crate::model) head: Option<M>,
    pub(in crate::model) layers: Vec<Layer<M>>,
    /// [hidden].
    pub(in crate::model) norm: Vec<f32>,
    /// Radians per position, [head_dim / 2].
    pub(in crate::model) inverse_frequencies: Vec<f32>,
}

/// One layer.
pub(in crate::model) struct Layer<M> {
    /// [hidden].
    pub(in crate::model) attention_norm: Vec<f32>,
    /// Query, key, value: [query_width + 2 · kv_width, hidden].
    pub(in crate::model) qkv: M,
    /// [query_width + 2 · kv_width], added to what that gives (Qwen2).
    pub(in crate::model) qkv_bias: Option<Vec<f32>>,
    /// Applied to each head of queries and of keys before it is rotated (Qwen3).
    pub(in crate::model) head_norms: Option<HeadNorms>,
    /// [hidden, query_width].
    pub(in crate::model) output: M,
    /// [hidden].
    pub(in crate::model) mlp_norm: Vec<f32>,
    /// Gate, up: [2 · intermediate, hidden].
    pub(in crate::model) gate_up: M,
    /// [hidden, intermediate].
    pub(in crate::model) down: M,
}

/// Weights of the norms that every head of queries and of keys goes through.
pub(in crate::model) struct HeadNorms {
    /// [head_dim].
    pub(in crate::model) query: Vec<f32>,
    /// [head_dim].
    pub(in crate::model) key: Vec<f32>,
}

impl<M> Parts<M> {
    /// Reads a model; `hold` makes a matrix of its rows, its columns and its values in rows.
    ///
    /// # Errors
    /// What reader and `hold` say, and [`ModelError::MissingTensor`].
    pub(in crate::model) fn read(
        source: &ModelSource,
        hold: impl FnMut(usize, usize, Vec<f32>) -> Result<M, ModelError>,
    ) -> Result<Self, ModelError> {
        let (config, mut reader) = source.open()?;
        let mut named = Named { reader: reader.as_mut(), hold };
        let ModelConfig { vocabulary, hidden, .. } = config;
        let embedding = named.matrix(hidden, &[("model.embed_tokens.weight", vocabulary)])?;
        let head = named.head(&config)?;
        let layers = (0..config.layers).map(|index| named.layer(index, &config)).collect::<Result<_, _>>()?;
        let norm = named.vector("model.norm.weight", hidden)?;
        let mut inverse_frequencies = inverse_frequencies(config.head_dim, config.rope_theta, &config.rope_scaling);
        if let Some(divisors) = named.reader.rope_divisors(inverse_frequencies.len())? {
            inverse_frequencies.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
        }
        Ok(Self { config, embedding, head, layers, norm, inverse_frequencies })
    }
}

struct Named<'a, Hold> {
    reader: &'a mut dyn TensorReader,
    hold: Hold,
}

impl<M, Hold: FnMut(usize, usize, Vec<f32>) -> Result<M, ModelError>> Named<'_, Hold> {
    /// The head of its own, if the configuration says that there is one or, where it says nothing, the files have one.
    fn head(&mut self, config: &ModelConfig) -> Result<Option<M>, ModelError> {
        let name = "lm_head.weight";
        let ModelConfig { vocabulary, hidden, tied, .. } = *config;
        if tied == Some(true) {
            return Ok(None);
        }
        match self.reader.read(name, &[vocabulary, hidden])? {
            Some(values) => (self.hold)(vocabulary, hidden, values).map(Some),
            None if tied.is_none() => Ok(None),
            None => Err(ModelError::MissingTensor(name.into())),
        }
    }

    fn layer(&mut self, index: usize, config: &ModelConfig) -> Result<Layer<M>, ModelError> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let ModelConfig { hidden, intermediate, .. } = *config;
        let (query, kv) = (config.query_width(), config.kv_width());
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm"), hidden)?,
            qkv: self.matrix(
                hidden,
                &[(&name("self_attn.q_proj"), query), (&name("self_attn.k_proj"), kv), (&name("self_attn.v_proj"), kv)],
            )?,
            qkv_bias: self.biases(index, config)?,
            head_norms: self.head_norms(index, config)?,
            output: self.matrix(query, &[(&name("self_attn.o_proj"), hidden)])?,
            mlp_norm: self.vector(&name("post_attention_layernorm"), hidden)?,
            gate_up: self
                .matrix(hidden, &[(&name("mlp.gate_proj"), intermediate), (&name("mlp.up_proj"), intermediate)])?,
            down: self.matrix(intermediate, &[(&name("mlp.down_proj"), hidden)])?,
        })
    }

    /// The biases of queries, keys and values in one, where the architecture has them.
    fn biases(&mut self, index: usize, config: &ModelConfig) -> Result<Option<Vec<f32>>, ModelError> {
        if !config.architecture.has_biases() {
            return Ok(None);
        }
        let mut stacked = Vec::new();
        for (part, rows) in [("q", config.query_width()), ("k", config.kv_width()), ("v", config.kv_width())] {
            stacked.extend(self.vector(&format!("model.layers.{index}.self_attn.{part}_proj.bias"), rows)?);
        }
        Ok(Some(stacked))
    }

    fn head_norms(&mut self, index: usize, config: &ModelConfig) -> Result<Option<HeadNorms>, ModelError> {
        if !config.architecture.has_head_norms() {
            return Ok(None);
        }
        let mut norm =
            |part: &str| self.vector(&format!("model.layers.{index}.self_attn.{part}_norm.weight"), config.head_dim);
        Ok(Some(HeadNorms { query: norm("q")?, key: norm("k")? }))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        self.reader.read(name, &[length])?.ok_or_else(|| ModelError::MissingTensor(name.into()))
    }

    /// Stacks the named tensors, given with their rows, into one matrix.
    fn matrix(&mut self, columns: usize, parts: &[(&str, usize)]) -> Result<M, ModelError> {
        let mut stacked = Vec::new();
        for (name, rows) in parts {
            let values = self.reader.read(name, &[*rows, columns])?;
            let values = values.ok_or_else(|| ModelError::MissingTensor((*name).into()))?;
            if stacked.is_empty() {
                stacked = values;
            } else {
                stacked.extend_from_slice(&values);
            }
        }
        (self.hold)(parts.iter().map(|(_, rows)| rows).sum(), columns, stacked)
    }
}
