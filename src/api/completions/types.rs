//! The request as vLLM 0.32 defines it (`vllm/entrypoints/openai/completion/protocol.py`).

use serde::Deserialize;
use serde_json::{Map, Value};

/// A completion request, typed as far as this sidecar understands it. What is only looked at to see that it is absent
/// stays JSON.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<PromptField>,
    pub(super) echo: Option<bool>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) logit_bias: Option<Map<String, Value>>,
    pub(super) logprobs: Option<i64>,
    pub(super) max_tokens: Option<u64>,
    #[serde(default = "one")]
    pub(super) n: usize,
    pub(super) presence_penalty: Option<f64>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<StopField>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) suffix: Option<Value>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    #[serde(rename = "user")]
    pub(super) _user: Option<String>,
    #[serde(default)]
    pub(super) use_beam_search: bool,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f64>,
    pub(super) repetition_penalty: Option<f64>,
    pub(super) watermarking: Option<Value>,
    #[serde(default, rename = "length_penalty")]
    pub(super) _length_penalty: f64,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    pub(super) include_stop_str_in_output: bool,
    #[serde(default)]
    pub(super) ignore_eos: bool,
    #[serde(default)]
    pub(super) min_tokens: u64,
    #[serde(default = "yes")]
    pub(super) skip_special_tokens: bool,
    #[serde(default = "yes")]
    pub(super) spaces_between_special_tokens: bool,
    pub(super) truncate_prompt_tokens: Option<Value>,
    #[serde(rename = "truncation_side")]
    pub(super) _truncation_side: Option<TruncationSide>,
    pub(super) allowed_token_ids: Option<Value>,
    pub(super) prompt_logprobs: Option<Value>,
    pub(super) logprob_token_ids: Option<Value>,
    #[serde(default)]
    pub(super) bad_words: Vec<String>,
    pub(super) prompt_embeds: Option<Value>,
    #[serde(default = "yes")]
    pub(super) add_special_tokens: bool,
    pub(super) response_format: Option<Value>,
    pub(super) structured_outputs: Option<Value>,
    #[serde(default)]
    pub(super) priority: i64,
    pub(super) request_id: Option<String>,
    pub(super) session_id: Option<Value>,
    pub(super) return_tokens_as_token_ids: Option<bool>,
    pub(super) return_token_ids: Option<bool>,
    #[serde(default)]
    pub(super) routed_experts_prompt_start: u64,
    pub(super) cache_salt: Option<String>,
    pub(super) kv_transfer_params: Option<Value>,
    pub(super) ec_transfer_params: Option<Value>,
    pub(super) vllm_xargs: Option<Value>,
    pub(super) repetition_detection: Option<Value>,
    pub(super) thinking_token_budget: Option<Value>,
    pub(super) stream_interval: Option<Value>,
    /// Fields that this sidecar has never heard of.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// Text, token ids, or a list of either.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum PromptField {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum StopField {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TruncationSide {
    Left,
    Right,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) continuous_usage_stats: Option<bool>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}
