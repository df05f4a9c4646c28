//! What a generate request looks like on the wire (`vllm/entrypoints/scale_out/token_in_token_out/protocol.py` and
//! `vllm/sampling_params.py`).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::openai::{OneOrMany, StreamOptions, yes};

/// A generate request, typed as far as this sidecar understands it.
#[derive(Debug, Deserialize)]
pub(super) struct GenerateRequest {
    pub(super) request_id: Option<String>,
    pub(super) token_ids: Vec<u32>,
    /// Of no meaning to the output.
    #[serde(rename = "token_offsets")]
    pub(super) _token_offsets: Option<Value>,
    pub(super) features: Option<Value>,
    pub(super) content_parts: Option<Value>,
    pub(super) sampling_params: SamplingParams,
    pub(super) model: Option<String>,
    pub(super) reasoning_ended: Option<Value>,
    pub(super) reasoning_parser_kwargs: Option<Value>,
    pub(super) return_token_ids: Option<bool>,
    pub(super) output_mode: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) cache_salt: Option<String>,
    #[serde(default)]
    pub(super) priority: i64,
    pub(super) kv_transfer_params: Option<Value>,
    pub(super) ec_transfer_params: Option<Value>,
    /// Fields that this sidecar has never heard of.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// vLLM's own sampling parameters.
#[derive(Debug, Deserialize)]
pub(super) struct SamplingParams {
    #[serde(default = "one")]
    pub(super) n: usize,
    #[serde(default)]
    pub(super) presence_penalty: f64,
    #[serde(default)]
    pub(super) frequency_penalty: f64,
    #[serde(default = "neutral")]
    pub(super) repetition_penalty: f64,
    #[serde(default = "neutral")]
    pub(super) temperature: f64,
    pub(super) watermarking: Option<Value>,
    #[serde(default = "neutral")]
    pub(super) top_p: f64,
    #[serde(default)]
    pub(super) top_k: i64,
    #[serde(default)]
    pub(super) min_p: f64,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<OneOrMany>,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    pub(super) ignore_eos: bool,
    pub(super) max_tokens: Option<u64>,
    #[serde(default)]
    pub(super) min_tokens: u64,
    pub(super) logprobs: Option<i64>,
    pub(super) prompt_logprobs: Option<i64>,
    pub(super) prompt_logprob_token_ids: Option<Value>,
    pub(super) prompt_logprob_start: Option<Value>,
    pub(super) logprob_token_ids: Option<Value>,
    /// Of meaning inside the server alone.
    #[serde(default, rename = "flat_logprobs")]
    pub(super) _flat_logprobs: bool,
    #[serde(default = "yes")]
    pub(super) detokenize: bool,
    #[serde(default = "yes")]
    pub(super) skip_special_tokens: bool,
    #[serde(default = "yes")]
    pub(super) spaces_between_special_tokens: bool,
    #[serde(default)]
    pub(super) include_stop_str_in_output: bool,
    /// 0, 1 or 2; the route sets it itself.
    #[serde(default)]
    pub(super) output_kind: u8,
    pub(super) stream_interval: Option<Value>,
    #[serde(default, rename = "skip_clone")]
    pub(super) _skip_clone: bool,
    pub(super) structured_outputs: Option<Value>,
    pub(super) logit_bias: Option<Map<String, Value>>,
    pub(super) allowed_token_ids: Option<Vec<u32>>,
    pub(super) extra_args: Option<Value>,
    pub(super) bad_words: Option<Vec<String>>,
    pub(super) skip_reading_prefix_cache: Option<bool>,
    pub(super) thinking_token_budget: Option<Value>,
    pub(super) repetition_detection: Option<Value>,
    /// Nothing where replies tell no routed experts, and where they do, everything is forwarded.
    #[serde(default, rename = "routed_experts_prompt_start")]
    pub(super) _routed_experts_prompt_start: u64,
    /// What trainers put here although it is no sampling parameter; vLLM takes no notice of it.
    #[serde(rename = "return_token_ids")]
    pub(super) _return_token_ids: Option<Value>,
    #[serde(rename = "cache_salt")]
    pub(super) _cache_salt: Option<Value>,
    #[serde(rename = "reasoning_effort")]
    pub(super) _reasoning_effort: Option<Value>,
    pub(super) trace_decode_token_ids: Option<Value>,
    /// Fields that this sidecar has never heard of.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

fn one() -> usize {
    1
}

fn neutral() -> f64 {
    1.0
}
