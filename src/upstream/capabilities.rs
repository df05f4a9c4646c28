//! What a server can do.

use std::collections::BTreeMap;

use super::wire::SamplingFields;

/// Whether `/inference/v1/generate` can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GenerateRoute {
    /// It answers.
    Available,
    /// The server has it, but it is switched off.
    Disabled {
        /// The server's own words, which name the flag.
        message: String,
    },
    /// The server is older than the route.
    Missing,
    /// It answers, but not as expected.
    Failing {
        /// What it said.
        message: String,
    },
}

/// How prompt log-probabilities come back when a part of the prompt was in the prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Full-length lists, in which the cached positions hold uninitialised memory.
    V1,
    /// Only the positions that were computed.
    V2,
    /// Could not be told apart.
    Unknown,
}

/// Which rows of `/inference/v1/generate` are real can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateSupport {
    /// Whether the route can be used.
    pub route: GenerateRoute,
    /// How its rows come.
    pub runner: Runner,
    /// Whether its replies say how many tokens were cached.
    pub reports_cached_tokens: bool,
    /// Whether the server failed to print rows that it had not computed, so that such calls have to be made twice.
    pub prints_badly: bool,
    /// Whether it scores ids that a request names, likely or not.
    pub scores_given_ids: bool,
}

impl GenerateSupport {
    /// Whether every row that the route returns can be trusted or known for lost.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.route == GenerateRoute::Available && (self.runner == Runner::V2 || self.reports_cached_tokens)
    }
}

/// How chat completions are answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatSupport {
    /// Whether they are answered at all, in the shape that this sidecar knows.
    pub available: bool,
    /// Whether a tool or reasoning parser works on the reply, so that its text is not the message.
    pub parsed: bool,
    /// Whether `/v1/chat/completions/render` shows the prompt.
    pub renders: bool,
    /// Whether streams echo a message as text; with some chat templates they echo its parts.
    pub echoes_text: bool,
    /// The size of the prefix cache's blocks, where replies say how many tokens they have put there.
    pub cache_block: Option<usize>,
}

impl ChatSupport {
    /// How many of `prompt_tokens` the server put into its prefix cache, which held `cached_tokens` of them before: the
    /// whole blocks.
    #[must_use]
    pub fn created_cache_tokens(&self, prompt_tokens: usize, cached_tokens: usize) -> Option<usize> {
        let block = self.cache_block?;
        Some((prompt_tokens / block * block).saturating_sub(cached_tokens))
    }
}

/// How many tokens a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenLimits {
    /// The most, whatever it asks for, if there is such a limit beside the model's length.
    pub most: Option<usize>,
    /// Where it does not say, if not all that the model's length leaves.
    pub default: Option<usize>,
}

/// What one server can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// As `/version` gives it.
    pub version: Option<String>,
    /// Whether vLLM's Rust frontend answers, which takes one prompt a request.
    pub rust_frontend: bool,
    /// The model it serves, or the first of them.
    pub model: String,
    /// The model's folder or hub name on the server.
    pub root: Option<String>,
    /// The longest context, prompt and output together.
    pub max_model_len: usize,
    /// The largest number of log-probabilities a request may ask for.
    pub max_logprobs: usize,
    /// Whether log-probabilities are those of the raw distribution (`--logprobs-mode raw_logprobs`).
    pub raw_logprobs: bool,
    /// Whether completions give prompt log-probabilities.
    pub prompt_logprobs: bool,
    /// The fast way to verify.
    pub generate: GenerateSupport,
    /// Chat completions.
    pub chat: ChatSupport,
    /// How many tokens a request gets.
    pub limits: TokenLimits,
    /// Whether streams end with the usage although nobody asked (`--enable-force-include-usage`).
    pub usage_unasked: bool,
    /// Whether replies tell of each token what no other call can, such as the experts that it was routed to.
    pub tells_more_than_tokens: bool,
    /// The policy version of its weights when it was probed.
    pub weight_version: String,
    /// What the server fills in for sampling parameters that a request leaves out; unknown without a render route.
    pub defaults: Option<SamplingFields>,
    /// Whether the server names tokens by id where a request does not say (`--return-tokens-as-token-ids`).
    pub tokens_as_ids: bool,
    /// The ids that end a sequence, each with whether it is the primary one, which is reported without a stop reason.
    pub end_tokens: BTreeMap<u32, EndToken>,
}

impl Capabilities {
    /// Whether a request may say how many tokens an event of its stream holds: from 0.32 on, in Python's frontend.
    #[must_use]
    pub fn takes_stream_interval(&self) -> bool {
        let mut parts = self.version.iter().flat_map(|version| version.split('.')).map(str::parse);
        let release: (Option<u32>, Option<u32>) =
            (parts.next().and_then(Result::ok), parts.next().and_then(Result::ok));
        !self.rust_frontend && matches!(release, (Some(major), Some(minor)) if (major, minor) >= (0, 32))
    }
}

/// How the server reports an end-of-sequence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndToken {
    /// With no stop reason.
    Primary,
    /// With its id as the stop reason.
    Additional,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_put_into_the_cache() {
        let chat = ChatSupport { cache_block: Some(32), ..ChatSupport::default() };
        assert_eq!(chat.created_cache_tokens(70, 0), Some(64));
        assert_eq!(chat.created_cache_tokens(70, 32), Some(32));
        assert_eq!(chat.created_cache_tokens(70, 64), Some(0));
        assert_eq!(ChatSupport::default().created_cache_tokens(70, 0), None);
    }

    #[test]
    fn rows_are_trusted_only_where_lost_ones_can_be_told() {
        let support = |runner, reports_cached_tokens| GenerateSupport {
            route: GenerateRoute::Available,
            runner,
            reports_cached_tokens,
            prints_badly: false,
            scores_given_ids: false,
        };
        assert!(support(Runner::V2, false).is_trusted());
        assert!(support(Runner::V1, true).is_trusted());
        assert!(!support(Runner::V1, false).is_trusted());
        assert!(!support(Runner::Unknown, false).is_trusted());
    }
}
