//! From a model's files to what goes to the GPU. What is in bfloat16 there stays as it is; anything else is rounded.

use super::weights::{Bf16, LayerWeights, Weights};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::kernels::rope::inverse_frequencies;
use crate::model::weights::{ModelSource, TensorReader};

impl Weights {
    /// Reads a model. Biases and norms of heads are read where the files have them.
    ///
    /// # Errors
    /// What the reader says, and [`ModelError::MissingTensor`].
    pub(in crate::model) fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let (config, mut reader) = source.open()?;
        let mut loader = Loader { reader: reader.as_mut(), config: &config };
        let ModelConfig { vocabulary, hidden, .. } = config;
        let embedding = loader.matrix(hidden, &[("model.embed_tokens.weight", vocabulary)])?;
        let head = match config.tied {
            Some(true) => None,
            Some(false) => Some(loader.matrix(hidden, &[("lm_head.weight", vocabulary)])?),
            None => loader.reader.read("lm_head.weight", &[vocabulary, hidden])?.map(|values| round(&values)),
        };
        let layers = (0..config.layers).map(|index| loader.layer(index)).collect::<Result<_, _>>()?;
        let norm = loader.vector("model.norm.weight", hidden)?;
        let mut inverse_frequencies = inverse_frequencies(config.head_dim, config.rope_theta, &config.rope_scaling);
        if let Some(divisors) = loader.reader.rope_divisors(inverse_frequencies.len())? {
            inverse_frequencies.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
        }
        Ok(Self { embedding, head, layers, norm, inverse_frequencies, config })
    }
}

struct Loader<'a> {
    reader: &'a mut dyn TensorReader,
    config: &'a ModelConfig,
}

impl Loader<'_> {
    fn layer(&mut self, index: usize) -> Result<LayerWeights, ModelError> {
        let ModelConfig { hidden, intermediate, head_dim, .. } = *self.config;
        let (query, kv) = (self.config.query_width(), self.config.kv_width());
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj.weight")));
        let [gate, up] = ["gate", "up"].map(|part| name(&format!("mlp.{part}_proj.weight")));
        let mut biases = Vec::new();
        for (part, rows) in [("q", query), ("k", kv), ("v", kv)] {
            biases
                .extend(self.reader.read(&name(&format!("self_attn.{part}_proj.bias")), &[rows])?.unwrap_or_default());
        }
        let [query_norm, key_norm] = ["q", "k"].map(|part| name(&format!("self_attn.{part}_norm.weight")));
        let norms = (self.reader.read(&query_norm, &[head_dim])?, self.reader.read(&key_norm, &[head_dim])?);
        Ok(LayerWeights {
            attention_norm: self.vector(&name("input_layernorm.weight"), hidden)?,
            qkv: self.matrix(hidden, &[(&q, query), (&k, kv), (&v, kv)])?,
            qkv_bias: (biases.len() == query + 2 * kv).then_some(biases),
            qk_norms: if let (Some(query), Some(key)) = norms { Some([query, key]) } else { None },
            output: self.matrix(query, &[(&name("self_attn.o_proj.weight"), hidden)])?,
            mlp_norm: self.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.matrix(hidden, &[(&gate, intermediate), (&up, intermediate)])?,
            down: self.matrix(intermediate, &[(&name("mlp.down_proj.weight"), hidden)])?,
        })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        self.reader.read(name, &[length])?.ok_or_else(|| ModelError::MissingTensor(name.into()))
    }

    /// Stacks the named tensors, given with their rows, into one matrix.
    fn matrix(&mut self, columns: usize, parts: &[(&str, usize)]) -> Result<Vec<Bf16>, ModelError> {
        let mut stacked = Vec::new();
        for (name, rows) in parts {
            let values = self.reader.read(name, &[*rows, columns])?;
            stacked.extend(round(&values.ok_or_else(|| ModelError::MissingTensor((*name).into()))?));
        }
        Ok(stacked)
    }
}

/// To nearest, ties to even.
fn round(values: &[f32]) -> Vec<Bf16> {
    let round = |value: &f32| {
        let bits = value.to_bits();
        let quiet = if value.is_nan() { 0x40 } else { 0 };
        let up = if value.is_nan() { 0 } else { 0x7fff + (bits >> 16 & 1) };
        ((bits.wrapping_add(up) >> 16) | quiet) as Bf16
    };
    values.iter().map(round).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::model::fixture::TinyLlama;

    #[test]
    fn rounding_is_to_the_nearest_and_keeps_what_is_no_number() {
        let halfway = f32::from_bits(0x3f80_8000);
        assert_eq!(round(&[1.0, halfway, -halfway, f32::from_bits(0x3f81_8000)]), [0x3f80, 0x3f80, 0xbf80, 0x3f82]);
        assert_eq!(round(&[f32::INFINITY, f32::MAX]), [0x7f80, 0x7f80]);
        assert!(f32::from_bits(u32::from(round(&[f32::NAN])[0]) << 16).is_nan());
    }

    #[test]
    fn a_folder_is_read_as_it_is_whatever_its_precision() {
        let folder = tempfile::tempdir().unwrap();
        let model = TinyLlama::random(1).untied();
        let [half, single] =
            [DType::BF16, DType::F32].map(|dtype| Weights::load(&model.write_folder(folder.path(), dtype, 1)).unwrap());
        let config = &half.config;
        assert_eq!(half.layers.len(), config.layers);
        assert_eq!(half.embedding.len(), config.vocabulary * config.hidden);
        let reversed: Vec<_> = half.embedding.iter().rev().copied().collect();
        assert_eq!(half.head.as_ref(), Some(&reversed));
        for (half, single) in half.layers.iter().zip(&single.layers) {
            assert_eq!(half.qkv.len(), (config.query_width() + 2 * config.kv_width()) * config.hidden);
            assert_eq!((&half.qkv, &half.gate_up, &half.down), (&single.qkv, &single.gate_up, &single.down));
            assert_eq!((&half.attention_norm, &half.output), (&single.attention_norm, &single.output));
            assert!(half.qkv_bias.is_none() && half.qk_norms.is_none());
        }
    }

    #[test]
    fn a_tensor_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let source = TinyLlama::random(1).without("model.layers.1.mlp.down_proj.weight").write_folder(
            folder.path(),
            DType::BF16,
            1,
        );
        let error = Weights::load(&source).err().unwrap();
        assert_eq!(error.to_string(), "the model has no tensor model.layers.1.mlp.down_proj.weight");
    }
}
