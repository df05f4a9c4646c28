//! What the server can be asked to sample or to score, by whichever route, and what it says.

use std::borrow::Cow;

use super::given_ids::GivenIds;
use super::ids::Prompt;
use super::origin::Origin;
use super::prompt_rows::{PromptReply, PromptScores};
use super::wire::{Constraints, Sampled, SamplingFields};

/// A request for tokens after one or more prompts under the same parameters.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// On whose behalf.
    pub origin: &'a Origin,
    /// Token ids of each prompt. The Rust frontend and the generate route take one prompt a request.
    pub prompts: Vec<Prompt<'a>>,
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
    /// Also report each prompt token's log-probability.
    pub prompt_logprobs: Option<PromptScores>,
    /// Ids to be scored in the places of the prompt's last tokens, a list for each of those; none where it is empty. Only
    /// the generate route of a server that [can](super::GenerateSupport::scores_given_ids) does.
    pub given_ids: &'a [Vec<u32>],
    /// Whether prompt log-probabilities name tokens by their text, too. The completions route always does.
    pub detokenize: bool,
    /// Whether to compute every position anew instead of only those that the prefix cache lacks; absent leaves it to
    /// the server, which computes all where prompt log-probabilities are asked for. Only the generate route can be told.
    pub skip_cache: Option<bool>,
    /// Tokens in an event of a stream, where the server takes such a wish. The first and the last event never wait.
    pub stream_interval: Option<usize>,
    /// Whether a stream ends with how many prompt tokens the prefix cache served.
    pub stream_usage: bool,
}

impl<'a> Call<'a> {
    /// A call for one token after `prompt` under the server's own defaults.
    #[must_use]
    pub fn new(origin: &'a Origin, prompt: impl Into<Prompt<'a>>) -> Self {
        Self {
            origin,
            prompts: vec![prompt.into()],
            sampling: Cow::Owned(SamplingFields::default()),
            constraints: Cow::Owned(Constraints::default()),
            n: 1,
            max_tokens: 1,
            logprobs: 0,
            prompt_logprobs: None,
            given_ids: &[],
            detokenize: false,
            skip_cache: None,
            stream_interval: None,
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
    /// What it says of the given ids; absent where it has not computed all that this takes.
    pub given_ids: Option<GivenIds>,
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
    /// What it says of the prompt's tokens, of which the first has no row. Only if asked for.
    pub prompt: Option<PromptReply>,
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
