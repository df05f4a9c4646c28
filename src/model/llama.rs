//! The weights of a model, laid out for few, large products.

use super::config::ModelConfig;
use super::error::ModelError;
use super::kernels::rope::inverse_frequencies;
use super::matrix::Matrix;
use super::options::Precision;
use super::weights::{ModelSource, TensorReader};

/// A model of any [`Architecture`](super::config::Architecture): a Llama, with what the others add to it.
pub(super) struct Llama {
    pub(super) config: ModelConfig,
    /// [vocabulary, hidden].
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    /// [hidden].
    pub(super) norm: Vec<f32>,
    /// [vocabulary, hidden]; absent when the embedding serves for it.
    head: Option<Matrix>,
    /// Radians per position, [head_dim / 2].
    pub(super) inverse_frequencies: Vec<f32>,
}

/// One layer; the matrices that read the same input are stacked into one.
pub(super) struct Layer {
    /// [hidden].
    pub(super) attention_norm: Vec<f32>,
    /// Query, key, value: [query_width + 2 · kv_width, hidden].
    pub(super) qkv: Matrix,
    /// [query_width + 2 · kv_width], added to what that gives.
    pub(super) qkv_bias: Option<Vec<f32>>,
    /// Applied to each head of queries and of keys before it is rotated.
    pub(super) head_norms: Option<HeadNorms>,
    /// [hidden, query_width].
    pub(super) output: Matrix,
    /// [hidden].
    pub(super) mlp_norm: Vec<f32>,
    /// Gate, up: [2 · intermediate, hidden].
    pub(super) gate_up: Matrix,
    /// [hidden, intermediate].
    pub(super) down: Matrix,
}

/// Weights of the norms that every head of queries and of keys goes through.
pub(super) struct HeadNorms {
    /// [head_dim].
    pub(super) query: Vec<f32>,
    /// [head_dim].
    pub(super) key: Vec<f32>,
}

impl Llama {
    pub(super) fn load(source: &ModelSource, precision: Precision) -> Result<Self, ModelError> {
        let (config, mut reader) = source.open()?;
        let mut loader = Loader { reader: reader.as_mut(), precision };
        let ModelConfig { vocabulary, hidden, .. } = config;
        let embedding = loader.matrix(hidden, &[("model.embed_tokens.weight", vocabulary)])?;
        let head_name = "lm_head.weight";
        let head = match config.tied {
            Some(true) => None,
            tied => match loader.reader.read(head_name, &[vocabulary, hidden])? {
                Some(values) => Some(Matrix::new(precision, vocabulary, hidden, values)?),
                None if tied.is_none() => None,
                None => return Err(ModelError::MissingTensor(head_name.into())),
            },
        };
        let layers = (0..config.layers).map(|index| loader.layer(index, &config)).collect::<Result<_, _>>()?;
        let norm = loader.vector("model.norm.weight", hidden)?;
        let mut inverse_frequencies = inverse_frequencies(config.head_dim, config.rope_theta, &config.rope_scaling);
        if let Some(divisors) = loader.reader.rope_divisors(inverse_frequencies.len())? {
            inverse_frequencies.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
        }
        Ok(Self { config, embedding, layers, norm, head, inverse_frequencies })
    }

    /// The matrix that turns a hidden state into logits.
    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

struct Loader<'a> {
    reader: &'a mut dyn TensorReader,
    precision: Precision,
}

impl Loader<'_> {
    fn layer(&mut self, index: usize, config: &ModelConfig) -> Result<Layer, ModelError> {
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
    fn matrix(&mut self, columns: usize, parts: &[(&str, usize)]) -> Result<Matrix, ModelError> {
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
        Matrix::new(self.precision, parts.iter().map(|(_, rows)| rows).sum(), columns, stacked)
    }
}
