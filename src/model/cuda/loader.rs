//! From a model's files to what goes to the GPU. What is in bfloat16 there stays as it is; anything else is rounded.

use super::weights::{Bf16, Weights};
use crate::model::error::ModelError;
use crate::model::weights::ModelSource;

impl Weights {
    /// Reads a model.
    ///
    /// # Errors
    /// What [`Weights::read`] says.
    pub(in crate::model) fn load(source: &ModelSource) -> Result<Self, ModelError> {
        Self::read(source, |_, _, values| Ok(round(&values)))
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
            assert!(half.qkv_bias.is_none() && half.head_norms.is_none());
        }
    }

    #[test]
    fn what_the_architecture_adds_is_read_in_single_precision() {
        let folder = tempfile::tempdir().unwrap();
        let load = |model: TinyLlama| Weights::load(&model.write_folder(folder.path(), DType::F32, 1)).unwrap();
        let (biased, normed) = (load(TinyLlama::random(1).qwen2()), load(TinyLlama::random(1).qwen3()));
        let width = biased.config.query_width() + 2 * biased.config.kv_width();
        assert!(biased.layers.iter().all(|layer| layer.qkv_bias.as_ref().is_some_and(|bias| bias.len() == width)));
        for norms in normed.layers.iter().map(|layer| layer.head_norms.as_ref().unwrap()) {
            assert_eq!([norms.query.len(), norms.key.len()], [normed.config.head_dim; 2]);
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
