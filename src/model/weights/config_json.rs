//! The shape of a model in a Hugging Face folder, from its `config.json`. Where that is silent, the defaults are those
//! of the configuration classes in transformers.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::config::{Architecture, ModelConfig};
use crate::model::error::ModelError;
use crate::model::kernels::rope::RopeScaling;

/// Reads `json`, the content of the file at `path`.
///
/// # Errors
/// [`ModelError::Unsupported`] for other architectures, or what the implementation of one lacks.
pub(super) fn parse(path: &Path, json: &str) -> Result<ModelConfig, ModelError> {
    let raw: RawArchitecture = serde_json::from_str(json).map_err(|error| ModelError::malformed(path, error))?;
    let name = raw.architectures.into_iter().flatten().next().or(raw.model_type);
    let architecture = Architecture::named(name.as_deref())?;
    let raw: RawConfig = serde_json::from_str(json).map_err(|error| ModelError::malformed(path, error))?;
    if let Some(what) = raw.unsupported(architecture) {
        return Err(ModelError::Unsupported(what));
    }
    // transformers 5 writes `rope_parameters`, with theta inside; earlier ones `rope_scaling` beside `rope_theta`.
    let rope = raw.rope_parameters.or(raw.rope_scaling);
    let inner_theta = rope.as_ref().and_then(|rope| rope.rope_theta);
    let (head_dim, max_positions) = match architecture {
        Architecture::Llama => (None, 2048),
        Architecture::Qwen2 => (None, 32_768),
        Architecture::Qwen3 => (Some(128), 32_768),
    };
    ModelConfig {
        architecture,
        vocabulary: raw.vocab_size,
        hidden: raw.hidden_size,
        intermediate: raw.intermediate_size,
        layers: raw.num_hidden_layers,
        heads: raw.num_attention_heads,
        kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
        head_dim: raw.head_dim.or(head_dim).unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
        rms_epsilon: raw.rms_norm_eps.unwrap_or(1e-6),
        max_positions: raw.max_position_embeddings.unwrap_or(max_positions),
        rope_theta: inner_theta.or(raw.rope_theta).unwrap_or(10_000.0),
        rope_scaling: rope.map_or(Ok(RopeScaling::None), RawRope::scaling)?,
        tied: raw.tie_word_embeddings,
    }
    .check()
}

/// The part that says whether the rest can be read.
#[derive(Deserialize)]
struct RawArchitecture {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct RawConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f32>,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<IgnoredAny>,
}

impl RawConfig {
    /// What it asks for and the implementation lacks.
    fn unsupported(&self, architecture: Architecture) -> Option<String> {
        let says = |flag: Option<bool>| flag.unwrap_or(false);
        // Qwen2's class has no such setting: its biases are there without being asked for.
        if (says(self.attention_bias) && !architecture.has_biases()) || says(self.mlp_bias) {
            return Some(format!("{architecture:?} with bias terms is not implemented"));
        }
        if let Some(activation) = self.hidden_act.as_deref().filter(|name| *name != "silu") {
            return Some(format!("activation {activation}: only silu is implemented"));
        }
        if says(self.use_sliding_window) {
            return Some("attention over a sliding window is not implemented".into());
        }
        if let Some(kind) = self.layer_types.iter().flatten().find(|kind| *kind != "full_attention") {
            return Some(format!("layers of type {kind}: only full_attention is implemented"));
        }
        if self.quantization_config.is_some() {
            return Some("its weights are quantised, which is read from GGUF files only".into());
        }
        let is_partial = |factor: Option<f64>| factor.is_some_and(|factor| factor < 1.0);
        let rope = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        if is_partial(self.partial_rotary_factor) || is_partial(rope.and_then(|rope| rope.partial_rotary_factor)) {
            return Some("rotating a part of each head is not implemented".into());
        }
        None
    }
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// An older name of `rope_type`; some files have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl RawRope {
    fn scaling(self) -> Result<RopeScaling, ModelError> {
        let kind = self.rope_type.or(self.older_type).unwrap_or_else(|| "default".to_owned());
        let need = |value: Option<f64>, name: &str| {
            value.ok_or_else(|| ModelError::Unsupported(format!("rope scaling {kind} without {name}")))
        };
        match kind.as_str() {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: need(self.factor, "factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low: need(self.low_freq_factor, "low_freq_factor")?,
                high: need(self.high_freq_factor, "high_freq_factor")?,
                original_positions: need(self.original_max_position_embeddings, "original_max_position_embeddings")?,
            }),
            other => Err(ModelError::Unsupported(format!("rope scaling {other} is not implemented"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ModelConfig, ModelError> {
        super::parse(Path::new("config.json"), json)
    }

    const SIZES: &str = r#""vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2"#;

    /// What a model of `kind` with `extra` fields is refused for.
    fn refusal(kind: &str, extra: &str) -> String {
        match parse(&format!(r#"{{"model_type": "{kind}", {SIZES}, {extra}}}"#)).unwrap_err() {
            ModelError::Unsupported(what) => what,
            error => panic!("{extra}: {error}"),
        }
    }

    #[test]
    fn theta_and_scaling_are_found_where_old_and_new_transformers_write_them() {
        let scaling = r#""rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192"#;
        let old = format!(r#"{{"model_type": "llama", {SIZES}, "rope_theta": 5e5, "rope_scaling": {{{scaling}}}}}"#);
        let new = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], {SIZES}, "rope_parameters": {{"rope_theta": 5e5, {scaling}}}}}"#
        );
        let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_positions: 8192.0 };
        for json in [old, new] {
            let config = parse(&json).unwrap();
            assert_eq!((config.rope_theta, config.rope_scaling), (5e5, expected.clone()));
        }
        let plain = parse(&format!(r#"{{"model_type": "llama", {SIZES}, "rope_theta": 5e5, "rope_scaling": null}}"#));
        assert_eq!(plain.unwrap().rope_scaling, RopeScaling::None);
        let both = r#""rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}"#;
        let both = parse(&format!(r#"{{"model_type": "llama", {SIZES}, {both}}}"#)).unwrap();
        assert_eq!(both.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    }

    #[test]
    fn what_a_file_leaves_out_is_as_its_class_says() {
        let config = |kind: &str| parse(&format!(r#"{{"model_type": "{kind}", {SIZES}}}"#)).unwrap();
        let told = |config: ModelConfig| (config.architecture, config.head_dim, config.max_positions);
        assert_eq!(told(config("llama")), (Architecture::Llama, 16, 2048));
        assert_eq!(told(config("qwen2")), (Architecture::Qwen2, 16, 32_768));
        assert_eq!(told(config("qwen3")), (Architecture::Qwen3, 128, 32_768));
        assert_eq!((config("qwen3").rope_theta, config("qwen3").rms_epsilon), (1e4, 1e-6));
    }

    #[test]
    fn other_architectures_are_refused_by_name() {
        let error = parse(r#"{"architectures": ["Gemma3ForCausalLM"], "anything": 1}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported draft model: only the architectures Llama, Qwen2 and Qwen3 are implemented, \
             not Gemma3ForCausalLM"
        );
    }

    #[test]
    fn what_an_implementation_lacks_is_refused_in_a_sentence() {
        for (kind, extra, sentence) in [
            ("llama", r#""attention_bias": true"#, "Llama with bias terms is not implemented"),
            ("llama", r#""mlp_bias": true"#, "Llama with bias terms is not implemented"),
            ("qwen3", r#""attention_bias": true"#, "Qwen3 with bias terms is not implemented"),
            ("llama", r#""hidden_act": "gelu""#, "activation gelu: only silu is implemented"),
            ("qwen2", r#""use_sliding_window": true"#, "attention over a sliding window is not implemented"),
            (
                "qwen3",
                r#""layer_types": ["full_attention", "sliding_attention"]"#,
                "layers of type sliding_attention: only full_attention is implemented",
            ),
            ("llama", r#""rope_scaling": {"type": "yarn"}"#, "rope scaling yarn is not implemented"),
            ("llama", r#""rope_scaling": {"type": "linear"}"#, "rope scaling linear without factor"),
            ("llama", r#""partial_rotary_factor": 0.5"#, "rotating a part of each head is not implemented"),
            (
                "qwen2",
                r#""quantization_config": {"quant_method": "gptq"}"#,
                "its weights are quantised, which is read from GGUF files only",
            ),
        ] {
            assert_eq!(refusal(kind, extra), sentence);
        }
    }

    #[test]
    fn what_is_switched_off_or_null_does_not_matter() {
        for extra in [
            r#""use_sliding_window": false, "sliding_window": 4096, "layer_types": ["full_attention"]"#,
            r#""use_sliding_window": null, "layer_types": null, "quantization_config": null, "architectures": null"#,
            r#""attention_bias": null, "mlp_bias": false, "rope_scaling": null, "rope_parameters": null"#,
        ] {
            let config = parse(&format!(r#"{{"model_type": "qwen2", {SIZES}, {extra}}}"#));
            assert!(config.is_ok(), "{extra}: {config:?}");
        }
    }

    #[test]
    fn heads_that_cannot_be_shared_are_refused() {
        let json = format!(r#"{{"model_type": "llama", {}}}"#, SIZES.replace("heads\": 2", "heads\": 3"));
        assert!(matches!(parse(&json), Err(ModelError::Unsupported(_))));
    }
}
