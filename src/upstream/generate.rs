//! `/inference/v1/generate`: token ids in, token ids out, with vLLM's own sampling parameters.

use serde::{Deserialize, Serialize};

use super::client::Upstream;
use super::error::UpstreamError;
use super::origin::Origin;
use super::wire::{Candidate, RowMap, Sampled, SamplingFields, WireUsage, rows};

pub(super) const PATH: &str = "/inference/v1/generate";

/// A request for one token after a prompt, with the prompt's own log-probabilities.
#[derive(Debug, Clone)]
pub struct GenerateCall<'a> {
    /// On whose behalf.
    pub origin: &'a Origin,
    /// The prompt.
    pub tokens: &'a [u32],
    /// Sampling parameters for the token after it. This route applies no defaults of the model's.
    pub sampling: &'a SamplingFields,
    /// How many of the likeliest tokens to report beside the sampled one.
    pub logprobs: usize,
    /// How many of the likeliest tokens to report for each prompt position that gets computed.
    pub prompt_logprobs: usize,
    /// Whether to compute every position anew instead of only those that the prefix cache lacks.
    pub skip_cache: bool,
}

/// What the server said.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateReply {
    /// Rows as they came: of the whole prompt, row i for prompt token i, or only of its last part.
    pub prompt_rows: Vec<Option<Vec<Candidate>>>,
    /// The token sampled after the prompt.
    pub sampled: Sampled,
    /// How many prompt tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
}

#[derive(Serialize)]
struct WireRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    token_ids: &'a [u32],
    sampling_params: WireSampling<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
    stream: bool,
}

#[derive(Serialize)]
struct WireSampling<'a> {
    #[serde(flatten)]
    fields: &'a SamplingFields,
    max_tokens: usize,
    logprobs: usize,
    prompt_logprobs: usize,
    skip_reading_prefix_cache: bool,
    detokenize: bool,
}

#[derive(Deserialize)]
struct WireReply {
    choices: Vec<WireChoice>,
    #[serde(default)]
    prompt_logprobs: Option<Vec<Option<RowMap>>>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChoice {
    logprobs: Option<WireLogprobs>,
}

#[derive(Deserialize)]
struct WireLogprobs {
    content: Option<Vec<WireContent>>,
}

/// Since 0.30 positions carry ids; before, chat-style token strings of the form `token_id:N`.
#[derive(Deserialize)]
struct WireContent {
    #[serde(default)]
    token_id: Option<u32>,
    #[serde(default)]
    token: Option<String>,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<WireTop>,
}

#[derive(Deserialize)]
struct WireTop {
    #[serde(default)]
    token_id: Option<u32>,
    #[serde(default)]
    token: Option<String>,
    logprob: f64,
}

fn id(token_id: Option<u32>, token: Option<&str>) -> Result<u32, String> {
    token_id.or_else(|| token.and_then(super::wire::placeholder_id)).ok_or_else(|| "a token without an id".to_owned())
}

impl WireContent {
    fn sampled(self) -> Result<Sampled, String> {
        let candidates = self
            .top_logprobs
            .iter()
            .map(|top| Ok(Candidate { token: id(top.token_id, top.token.as_deref())?, logprob: top.logprob }))
            .collect::<Result<_, String>>()?;
        Ok(Sampled { token: id(self.token_id, self.token.as_deref())?, logprob: self.logprob, candidates })
    }
}

impl Upstream {
    /// Scores a prompt and samples one token after it.
    ///
    /// # Errors
    /// When the server refuses or its reply lacks a part.
    pub async fn generate(&self, call: &GenerateCall<'_>) -> Result<GenerateReply, UpstreamError> {
        let request = WireRequest {
            model: call.origin.model.as_deref(),
            token_ids: call.tokens,
            sampling_params: WireSampling {
                fields: call.sampling,
                max_tokens: 1,
                logprobs: call.logprobs,
                prompt_logprobs: call.prompt_logprobs,
                skip_reading_prefix_cache: call.skip_cache,
                detokenize: false,
            },
            cache_salt: call.origin.cache_salt.as_deref(),
            stream: false,
        };
        let body = self.post(call.origin, PATH, &request).await?;
        parse(&body).map_err(|reason| UpstreamError::Protocol { path: PATH, reason })
    }
}

fn parse(body: &[u8]) -> Result<GenerateReply, String> {
    let reply: WireReply = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let choice = reply.choices.into_iter().next().ok_or("no choice")?;
    let content = choice.logprobs.and_then(|logprobs| logprobs.content).ok_or("no log-probabilities")?;
    let sampled = content.into_iter().next().ok_or("no token")?.sampled()?;
    Ok(GenerateReply {
        prompt_rows: rows(reply.prompt_logprobs.ok_or("no prompt log-probabilities")?),
        sampled,
        cached_tokens: reply.usage.and_then(WireUsage::cached_tokens),
    })
}
