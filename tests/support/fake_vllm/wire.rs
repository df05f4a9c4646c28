//! Pieces that several replies have in common.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};

use super::config::{FakeConfig, Frontend, Runner};
use super::engine::Engine;
use super::error::ApiError;
use super::logprobs::Row;

/// `stream_options`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    /// A chunk with the usage at the end.
    pub include_usage: bool,
    /// The usage so far in every chunk.
    pub continuous_usage_stats: Option<bool>,
}

/// `created`: no reply depends on the real time.
#[must_use]
pub fn now() -> u64 {
    1_760_000_000
}

/// `system_fingerprint`.
#[must_use]
pub fn fingerprint(config: &FakeConfig) -> String {
    format!("vllm-{}-fake", config.version)
}

/// The id of a request: the client's, or the next number.
#[must_use]
pub fn request_id(given: Option<&str>) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    given.map_or_else(|| format!("{:032x}", NEXT.fetch_add(1, Ordering::Relaxed)), str::to_owned)
}

/// `usage` in the middle of a stream: counts alone.
#[must_use]
pub fn usage_counts(prompt: usize, output: usize) -> Value {
    json!({"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output})
}

/// `usage` at the end, with the cached tokens where the server was told to say them. Streams leave `nulls` out.
#[must_use]
pub fn usage(config: &FakeConfig, prompt: usize, output: usize, cached: usize, nulls: bool) -> Value {
    let mut usage = usage_counts(prompt, output);
    if nulls {
        usage["prompt_tokens_details"] = Value::Null;
        usage["completion_tokens_details"] = Value::Null;
    }
    if config.prompt_tokens_details {
        usage["prompt_tokens_details"] = if nulls {
            json!({"cached_tokens": cached, "created_cache_tokens": null, "multimodal_tokens": null})
        } else {
            json!({"cached_tokens": cached})
        };
    }
    usage
}

/// `prompt_logprobs`: a map for each row, `null` where there is none. `text` adds the decoded tokens.
#[must_use]
pub fn prompt_logprobs(engine: &Engine, prompt: &[u32], rows: &[Option<Row>], text: bool) -> Value {
    // The V2 runner's rows are the last of the prompt.
    let first = prompt.len() - rows.len();
    let map = |(at, row): (usize, &Option<Row>)| {
        row.as_ref().map(|row| {
            row.to_map(|id| {
                (text && engine.config.frontend == Frontend::Python)
                    .then(|| engine.codec.decoded_token(&prompt[..first + at], id))
                    .or_else(|| engine.config.is_rust_frontend().then(|| format!("token_id:{id}")))
            })
        })
    };
    rows.iter().enumerate().map(map).collect()
}

/// Rows that JSON can carry.
///
/// # Errors
/// Python refuses to write NaN, and vLLM answers 400.
pub fn finite(config: &FakeConfig, rows: Vec<Option<Row>>) -> Result<Vec<Option<Row>>, ApiError> {
    let nan = rows.iter().flatten().flat_map(|row| &row.0).any(|entry| entry.logprob.is_nan());
    if nan && config.frontend == Frontend::Python {
        debug_assert_eq!(config.runner, Runner::V1, "only the V1 runner returns rows it did not compute");
        return Err(ApiError::bad_request("Out of range float values are not JSON compliant"));
    }
    Ok(rows)
}
