//! `/inference/v1/generate`: token ids in, token ids out, with vLLM's own sampling parameters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{Pieced, Pieces};
use super::call::{Call, Choice, Reply};
use super::client::Upstream;
use super::error::UpstreamError;
use super::given_ids::GivenIds;
use super::ids::Prompt;
use super::prompt_rows::{PromptField, PromptRead, RawRows};
use super::wire::{Candidate, MaybeId, Sampled, SamplingFields, StreamOptions, VersionSpan, WireUsage, is_zero};

pub(super) const PATH: &str = "/inference/v1/generate";

/// All but the prompt, which is written apart.
#[derive(Serialize)]
struct WireRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    sampling_params: WireSampling<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: i64,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct WireSampling<'a> {
    #[serde(flatten)]
    fields: &'a SamplingFields,
    n: usize,
    max_tokens: usize,
    #[serde(skip_serializing_if = "is_zero")]
    min_tokens: usize,
    logprobs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<usize>,
    #[serde(skip_serializing_if = "<[Vec<u32>]>::is_empty")]
    prompt_logprob_token_ids: &'a [Vec<u32>],
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprob_start: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    logit_bias: BTreeMap<u32, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    bad_words: &'a [String],
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    stop_token_ids: &'a [u32],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_reading_prefix_cache: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_interval: Option<usize>,
    detokenize: bool,
}

impl Call<'_> {
    /// The row of the first position with given ids. Row i is of token i + 1.
    fn first_row_of_given_ids(&self) -> Option<usize> {
        let count = self.prompts.first().map_or(0, Prompt::count);
        (!self.given_ids.is_empty()).then(|| count.saturating_sub(1 + self.given_ids.len()))
    }

    /// The call for its first prompt.
    pub(super) fn as_generate(&self, stream: bool) -> Result<Pieced, UpstreamError> {
        let constraints = &*self.constraints;
        let fields = WireRequest {
            model: self.origin.model.as_deref(),
            sampling_params: WireSampling {
                fields: &self.sampling,
                n: self.n,
                max_tokens: self.max_tokens,
                min_tokens: constraints.min_tokens.min(self.max_tokens),
                logprobs: self.logprobs,
                prompt_logprobs: self.prompt_logprobs.map(|asked| asked.top),
                prompt_logprob_token_ids: self.given_ids,
                prompt_logprob_start: self.first_row_of_given_ids(),
                logit_bias: constraints.logit_bias.iter().copied().collect(),
                allowed_token_ids: constraints.allowed_token_ids.as_deref(),
                bad_words: &constraints.bad_words,
                stop_token_ids: &constraints.stop_token_ids,
                ignore_eos: constraints.ignore_eos,
                skip_reading_prefix_cache: self.skip_cache,
                stream_interval: self.stream_interval,
                detokenize: self.detokenize,
            },
            cache_salt: self.origin.cache_salt.as_deref(),
            priority: self.origin.priority,
            stream,
            stream_options: StreamOptions::of(self, stream),
        };
        let mut body = Pieces::object(&fields).map_err(|error| protocol(error.to_string()))?;
        body.text().extend_from_slice(br#","token_ids":"#);
        self.prompts.first().copied().unwrap_or(Prompt::from(&[])).put(&mut body);
        body.text().push(b'}');
        Ok(body.finish())
    }
}

fn protocol(reason: String) -> UpstreamError {
    UpstreamError::Protocol { path: PATH, reason }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
struct WireReply<P> {
    choices: Vec<WireChoice>,
    #[serde(default)]
    prompt_logprobs: Option<P>,
    #[serde(default)]
    prompt_token_id_logprobs: Option<String>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    model: Option<String>,
}

/// One output, or what an event brings of it.
#[derive(Deserialize)]
pub(super) struct WireChoice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
    #[serde(default)]
    stop_reason: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) weight_versions: Option<Vec<VersionSpan>>,
}

impl WireChoice {
    pub(super) fn sampled(&mut self) -> Result<Vec<Sampled>, String> {
        let content = self.logprobs.take().and_then(|logprobs| logprobs.content).unwrap_or_default();
        content.into_iter().map(WireContent::sampled).collect()
    }

    pub(super) fn version(&mut self) -> Option<String> {
        self.weight_versions.take().and_then(|spans| spans.into_iter().next_back()).map(|span| span.version)
    }
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
    token: MaybeId,
    logprob: f64,
    #[serde(default)]
    rank: Option<u32>,
    #[serde(default)]
    top_logprobs: Vec<WireContent>,
}

impl WireContent {
    fn candidate(&self) -> Result<Candidate, String> {
        let token = self.token_id.or(self.token.0).ok_or_else(|| "a token without an id".to_owned())?;
        Ok(Candidate { token, logprob: self.logprob, rank: self.rank })
    }

    fn sampled(self) -> Result<Sampled, String> {
        let Candidate { token, logprob, rank } = self.candidate()?;
        let candidates = self.top_logprobs.iter().map(Self::candidate).collect::<Result<_, _>>()?;
        Ok(Sampled { token, logprob, rank, candidates })
    }
}

impl Upstream {
    /// Samples after the call's only prompt, and scores it if asked to.
    ///
    /// # Errors
    /// When the server refuses, aborts, or its reply lacks a part.
    pub async fn generate(&self, call: &Call<'_>) -> Result<Reply, UpstreamError> {
        let body = self.post_body(call.origin, PATH, call.as_generate(false)?).await?;
        read(&body, call)
    }
}

/// What a successful reply to `call` says.
pub(super) fn read(body: &[u8], call: &Call<'_>) -> Result<Reply, UpstreamError> {
    let reply = match call.prompt_logprobs.map(|asked| asked.read) {
        Some(PromptRead::AsWritten) => parse::<&RawValue>(body, call),
        _ => parse::<RawRows<'_>>(body, call),
    };
    let reply = reply.map_err(protocol)?;
    if reply.choices.iter().any(Choice::is_aborted) {
        return Err(UpstreamError::Aborted);
    }
    Ok(reply)
}

fn parse<'a, P: PromptField<'a>>(body: &'a [u8], call: &Call<'_>) -> Result<Reply, String> {
    let mut reply: WireReply<P> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    reply.choices.sort_by_key(|choice| choice.index);
    if reply.choices.len() != call.n {
        return Err(format!("{} choices instead of {}", reply.choices.len(), call.n));
    }
    let rows = call.prompt_logprobs.map_or(0, |asked| asked.rows());
    let prompt = reply.prompt_logprobs.map(|field| field.reply(rows)).transpose()?;
    if call.prompt_logprobs.is_some() && prompt.is_none() {
        return Err("no prompt log-probabilities".to_owned());
    }
    let given = reply.prompt_token_id_logprobs.filter(|_| !call.given_ids.is_empty());
    let given_ids = given.map(|text| GivenIds::read(&text, call.given_ids)).transpose()?;
    let choices = reply.choices.into_iter().map(|mut choice| {
        let tokens = choice.sampled()?;
        if tokens.is_empty() && choice.finish_reason.as_deref() != Some(super::call::ABORTED) {
            return Err("no token".to_owned());
        }
        Ok(Choice {
            tokens,
            prompt: prompt.clone(),
            version: choice.version(),
            finish_reason: choice.finish_reason,
            stop_reason: choice.stop_reason,
        })
    });
    Ok(Reply {
        choices: choices.collect::<Result<_, String>>()?,
        cached_tokens: reply.usage.and_then(WireUsage::cached_tokens),
        given_ids,
        fingerprint: None,
        model: reply.model,
    })
}
