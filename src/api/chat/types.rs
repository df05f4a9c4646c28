//! What a chat completion request looks like on the wire (`vllm/entrypoints/openai/chat_completion/protocol.py`).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::openai::{Common, yes};

/// A chat completion request, typed as far as this sidecar understands it.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) messages: Vec<Map<String, Value>>,
    pub(super) logprobs: Option<bool>,
    #[serde(default)]
    pub(super) top_logprobs: i64,
    pub(super) max_tokens: Option<u64>,
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) n: Option<usize>,
    pub(super) tools: Option<Value>,
    pub(super) tool_choice: Option<Value>,
    pub(super) reasoning_effort: Option<Value>,
    /// Of meaning only to a parser, with which nothing is speculated.
    #[serde(default = "yes", rename = "include_reasoning")]
    pub(super) _include_reasoning: bool,
    /// Of meaning only with tools.
    #[serde(rename = "parallel_tool_calls")]
    pub(super) _parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub(super) echo: bool,
    #[serde(default = "yes")]
    pub(super) add_generation_prompt: bool,
    #[serde(default)]
    pub(super) continue_final_message: bool,
    #[serde(default)]
    pub(super) add_special_tokens: bool,
    pub(super) documents: Option<Value>,
    pub(super) chat_template: Option<String>,
    pub(super) chat_template_kwargs: Option<Map<String, Value>>,
    pub(super) media_io_kwargs: Option<Value>,
    pub(super) mm_processor_kwargs: Option<Value>,
    pub(super) return_prompt_text: Option<bool>,
    /// Fields that this sidecar has never heard of.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}
