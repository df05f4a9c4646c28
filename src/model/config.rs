//! The shape of a Llama model, from a Hugging Face `config.json`.

use std::path::Path;

use serde::Deserialize;

use super::error::ModelError;
use super::kernels::rope::RopeScaling;

/// The shape of a Llama model; counts are of elements, not bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LlamaConfig {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) rms_epsilon: f32,
    pub(super) max_positions: usize,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: RopeScaling,
    /// Whether the embedding serves as the output matrix; `None`: it does if there is no output matrix.
    pub(super) tied: Option<bool>,
}

impl LlamaConfig {
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

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for other architectures than Llama, or what this implementation of it lacks.
    pub(super) fn from_json(path: &Path, json: &str) -> Result<Self, ModelError> {
        let raw: RawArchitecture = serde_json::from_str(json).map_err(|error| ModelError::malformed(path, error))?;
        let architecture = raw.architectures.first().or(raw.model_type.as_ref());
        match architecture.map(String::as_str) {
            Some("LlamaForCausalLM" | "llama") => {}
            other => {
                let name = other.unwrap_or("an unnamed one");
                return Err(ModelError::Unsupported(format!("only the Llama architecture is implemented, not {name}")));
            }
        }
        let raw: RawConfig = serde_json::from_str(json).map_err(|error| ModelError::malformed(path, error))?;
        if raw.attention_bias || raw.mlp_bias {
            return Err(ModelError::Unsupported("Llama with bias terms is not implemented".into()));
        }
        if let Some(activation) = raw.hidden_act.as_deref().filter(|name| *name != "silu") {
            return Err(ModelError::Unsupported(format!("activation {activation}: only silu is implemented")));
        }
        // transformers 5 writes `rope_parameters`, with theta inside; earlier ones `rope_scaling` beside `rope_theta`.
        let rope = raw.rope_parameters.or(raw.rope_scaling);
        let inner_theta = rope.as_ref().and_then(|rope| rope.rope_theta);
        Self {
            vocabulary: raw.vocab_size,
            hidden: raw.hidden_size,
            intermediate: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
            rms_epsilon: raw.rms_norm_eps.unwrap_or(1e-6),
            max_positions: raw.max_position_embeddings.unwrap_or(2048),
            rope_theta: inner_theta.or(raw.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.map_or(Ok(RopeScaling::None), RawRope::scaling)?,
            tied: raw.tie_word_embeddings,
        }
        .check()
    }
}

/// The part that says whether the rest can be read.
#[derive(Deserialize)]
struct RawArchitecture {
    #[serde(default)]
    architectures: Vec<String>,
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
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl RawRope {
    fn scaling(self) -> Result<RopeScaling, ModelError> {
        let kind = self.rope_type.as_deref().unwrap_or("default");
        let need = |value: Option<f64>, name: &str| {
            value.ok_or_else(|| ModelError::Unsupported(format!("rope scaling {kind} without {name}")))
        };
        match kind {
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

    fn parse(json: &str) -> Result<LlamaConfig, ModelError> {
        LlamaConfig::from_json(Path::new("config.json"), json)
    }

    const SIZES: &str = r#""vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2"#;

    #[test]
    fn theta_is_found_where_old_and_new_transformers_write_it() {
        let old = parse(&format!(r#"{{"model_type": "llama", {SIZES}, "rope_theta": 5e5, "rope_scaling": null}}"#));
        assert_eq!(old.unwrap().rope_theta, 5e5);
        let new = parse(&format!(
            r#"{{"architectures": ["LlamaForCausalLM"], {SIZES},
                "rope_parameters": {{"rope_theta": 1e5, "rope_type": "default"}}}}"#
        ));
        assert_eq!(new.unwrap().rope_theta, 1e5);
    }

    #[test]
    fn other_architectures_are_refused_by_name() {
        let error = parse(r#"{"architectures": ["Qwen3ForCausalLM"], "anything": 1}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported draft model: only the Llama architecture is implemented, not Qwen3ForCausalLM"
        );
    }

    #[test]
    fn what_this_llama_lacks_is_refused() {
        for extra in [r#""attention_bias": true"#, r#""hidden_act": "gelu""#, r#""rope_scaling": {"type": "yarn"}"#] {
            let error = parse(&format!(r#"{{"model_type": "llama", {SIZES}, {extra}}}"#)).unwrap_err();
            assert!(matches!(error, ModelError::Unsupported(_)), "{error}");
        }
    }

    #[test]
    fn heads_that_cannot_be_shared_are_refused() {
        let json = format!(r#"{{"model_type": "llama", {}}}"#, SIZES.replace("heads\": 2", "heads\": 3"));
        assert!(matches!(parse(&json), Err(ModelError::Unsupported(_))));
    }
}
