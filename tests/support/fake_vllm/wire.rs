//! Pieces that several replies have in common.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::config::{FakeConfig, Frontend, Runner};
use super::engine::Engine;
use super::error::ApiError;
use super::logprobs::Row;
use super::ordered::{Json, NULL, obj};

/// `stream_options`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    /// A chunk with the usage at the end.
    pub include_usage: Option<bool>,
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
pub fn usage_counts(prompt: usize, output: usize) -> Json {
    obj! {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
}

/// The tokens of a reply, as `usage` tells them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Of the prompts.
    pub prompt: usize,
    /// Of all choices.
    pub output: usize,
    /// Of the prompt, served by the prefix cache.
    pub cached: usize,
    /// Of the prompt, put into the prefix cache. Only chat says it.
    pub created: Option<usize>,
    /// Of the output, reasoning; where the server has a parser for it.
    pub reasoning: Option<usize>,
}

impl Spent {
    /// `usage` at the end, with the cached tokens where the server was told to say them. Streams leave `nulls` out.
    #[must_use]
    pub fn usage(&self, config: &FakeConfig, nulls: bool) -> Json {
        let mut usage = usage_counts(self.prompt, self.output);
        if nulls {
            usage.set("prompt_tokens_details", NULL);
            usage.set("completion_tokens_details", NULL);
        }
        if config.prompt_tokens_details {
            let mut details = obj! {"cached_tokens": self.cached};
            if nulls || self.created.is_some() {
                details.set("created_cache_tokens", self.created);
            }
            if nulls {
                details.set("multimodal_tokens", NULL);
            }
            usage.set("prompt_tokens_details", details);
        }
        if let Some(reasoning) = self.reasoning {
            usage.set("completion_tokens_details", obj! {"reasoning_tokens": reasoning});
        }
        usage
    }
}

/// `max_tokens` as the server resolves it (`get_max_tokens`): what was asked for, or the generation config's, cut to the
/// room that is left and to what the operator allows.
#[must_use]
pub fn max_tokens(config: &FakeConfig, asked: Option<i64>, prompt: usize) -> i64 {
    let room = config.max_model_len as i64 - prompt as i64;
    let asked = asked.or(config.defaults.max_new_tokens);
    [asked, config.override_max_tokens].into_iter().flatten().fold(room, i64::min)
}

/// Whether a stream ends with its usage, and whether every chunk has it (`should_include_usage`).
#[must_use]
pub fn wants_usage(options: Option<&StreamOptions>, forced: bool) -> (bool, bool) {
    let options = options.cloned().unwrap_or_default();
    let include = options.include_usage == Some(true);
    (forced || include, forced || (include && options.continuous_usage_stats == Some(true)))
}

/// `prompt_logprobs`: a map for each row, `null` where there is none. `text` adds the decoded tokens.
#[must_use]
pub fn prompt_logprobs(engine: &Engine, prompt: &[u32], rows: &[Option<Row>], text: bool) -> Json {
    // The V2 runner's rows are the last of the prompt.
    let first = prompt.len() - rows.len();
    let map = |(at, row): (usize, &Option<Row>)| {
        Json::from(row.as_ref().map(|row| {
            row.to_map(|id| {
                (text && engine.config.frontend == Frontend::Python)
                    .then(|| engine.codec.decoded_token(&prompt[..first + at], id))
                    .or_else(|| engine.config.is_rust_frontend().then(|| format!("token_id:{id}")))
            })
        }))
    };
    rows.iter().enumerate().map(map).collect()
}

/// Rows that JSON can carry.
///
/// # Errors
/// Python refuses to write NaN, and vLLM answers 400.
pub fn finite(config: &FakeConfig, rows: &[Option<Row>]) -> Result<(), ApiError> {
    let nan = rows.iter().flatten().flat_map(|row| &row.0).any(|entry| entry.logprob.is_nan());
    if nan && config.frontend == Frontend::Python {
        debug_assert_eq!(config.runner, Runner::V1, "only the V1 runner returns rows it did not compute");
        return Err(ApiError::bad_request("Out of range float values are not JSON compliant"));
    }
    Ok(())
}
