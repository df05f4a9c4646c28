//! What the server can be asked to sample or to score, by whichever route, and what it says.

use std::borrow::Cow;
use std::sync::Arc;

use super::origin::Origin;
use super::wire::{Candidate, Constraints, Sampled, SamplingFields};

/// A request for tokens after one or more prompts under the same parameters.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// On whose behalf.
    pub origin: &'a Origin,
    /// Token ids of each prompt. The Rust frontend and the generate route take one prompt a request.
    pub prompts: Vec<Cow<'a, [u32]>>,
    /// What shapes the distribution. The completions route fills in the model's defaults for what is absent, the
    /// generate route neutral values.
    pub sampling: Cow<'a, SamplingFields>,
    /// What bars tokens and what ends the output.
    pub constraints: Cow<'a, Constraints>,
    /// How many outputs to sample after each prompt, at least 1.
    pub n: usize,
    /// Tokens to sample in each output, at least 1.
    pub max_tokens: usize,
    /// How many of the likeliest tokens to report beside each sampled one.
    pub logprobs: usize,
    /// Also report each prompt token's log-probability and so many of the likeliest.
    pub prompt_logprobs: Option<usize>,
    /// Whether prompt log-probabilities name tokens by their text, too. The completions route always does.
    pub detokenize: bool,
    /// Whether to compute every position anew instead of only those that the prefix cache lacks; absent leaves it to
    /// the server, which computes all where prompt log-probabilities are asked for. Only the generate route can be told.
    pub skip_cache: Option<bool>,
    /// Whether a stream ends with how many prompt tokens the prefix cache served.
    pub stream_usage: bool,
}

impl<'a> Call<'a> {
    /// A call for one token after `prompt` under the server's own defaults.
    #[must_use]
    pub fn new(origin: &'a Origin, prompt: &'a [u32]) -> Self {
        Self {
            origin,
            prompts: vec![Cow::Borrowed(prompt)],
            sampling: Cow::Owned(SamplingFields::default()),
            constraints: Cow::Owned(Constraints::default()),
            n: 1,
            max_tokens: 1,
            logprobs: 0,
            prompt_logprobs: None,
            detokenize: false,
            skip_cache: None,
            stream_usage: false,
        }
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The outputs of the first prompt, then those of the second, and so on.
    pub choices: Vec<Choice>,
    /// How many prompt tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The name under which the server answers.
    pub model: Option<String>,
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The sampled tokens.
    pub tokens: Vec<Sampled>,
    /// Row i describes prompt token i, or the prompt's last rows alone; the first token has none. Only if asked for.
    pub prompt_rows: Option<Vec<Option<Vec<Candidate>>>>,
    /// The same rows as the server wrote them, in JSON.
    pub prompt_rows_json: Option<Arc<str>>,
    /// `stop`, `length` and the like.
    pub finish_reason: Option<String>,
    /// The stop token's id, if it was not the model's primary end-of-sequence token.
    pub stop_reason: Option<serde_json::Value>,
    /// The policy version of the last token, where the route tells.
    pub version: Option<String>,
}

impl Choice {
    /// Whether the server gave it up before it sampled anything.
    pub(super) fn is_aborted(&self) -> bool {
        self.tokens.is_empty() && self.finish_reason.as_deref() == Some(ABORTED)
    }
}

/// The finish reason of what the server gave up.
pub(super) const ABORTED: &str = "abort";
