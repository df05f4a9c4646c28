//! What a completion request looks like on the wire (`vllm/entrypoints/openai/completion/protocol.py`).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::openai::{Common, yes};

/// A completion request, typed as far as this sidecar understands it.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) prompt: Option<PromptField>,
    pub(super) echo: Option<bool>,
    pub(super) logprobs: Option<i64>,
    pub(super) max_tokens: Option<u64>,
    #[serde(default = "one")]
    pub(super) n: usize,
    pub(super) suffix: Option<Value>,
    pub(super) prompt_embeds: Option<Value>,
    #[serde(default = "yes")]
    pub(super) add_special_tokens: bool,
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

fn one() -> usize {
    1
}
