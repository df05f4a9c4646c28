//! What the replies of all endpoints are made of.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::rollout::{Delta, Engine, Finish, FinishReason, StopReason};
use crate::speculation::Scored;
use crate::text::{TextError, Tokenizer, token_text};
use crate::upstream::{ChatSupport, VersionSpan};
use crate::verify::Prefill;

/// One choice as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) tokens: Vec<Scored>,
    pub(super) text: String,
    pub(super) finish: Option<Finish>,
    pub(super) prefill: Prefill,
    pub(super) versions: Vec<VersionSpan>,
}

impl Output {
    pub(super) fn add(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        self.text.push_str(&delta.text);
        self.finish = delta.finish;
        self.versions = delta.versions.unwrap_or_default();
        if let Some(prefill) = delta.prefill {
            self.prefill = prefill;
        }
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|scored| scored.token).collect()
    }
}

/// How far a stream has brought one choice.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    pub(super) ids: Vec<u32>,
    /// Where the next token's text will start among the names of tokens, in characters.
    pub(super) offset: usize,
    pub(super) finished: bool,
}

/// The shape of an endpoint's replies. All of it is JSON.
pub(super) trait Dialect: Send + Sync + 'static {
    /// The whole reply.
    fn whole(&self, outputs: &[Output]) -> Result<Bytes, TextError>;

    /// The events before the first token.
    fn opening(&self, prefill: &Prefill) -> Vec<Bytes> {
        let _ = prefill;
        Vec::new()
    }

    /// The event that brings `delta` to choice `index`, which had come as far as `progress`; not every delta needs one.
    fn chunk(
        &self,
        prefill: &Prefill,
        index: usize,
        progress: &mut Progress,
        delta: &Delta,
    ) -> Result<Option<Bytes>, TextError>;

    /// The event after the last token.
    fn closing(&self, prefill: &Prefill, progress: &[Progress]) -> Option<Bytes>;
}

/// What all replies to a request have in common.
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) prompts: Vec<Vec<u32>>,
    /// Choices for each prompt.
    pub(super) n: usize,
    /// How many log-probabilities the client wants with each token, if any.
    pub(super) logprobs: Option<usize>,
    /// Whether tokens are named by their ids.
    pub(super) tokens_as_ids: bool,
    pub(super) return_token_ids: bool,
    pub(super) usage: super::openai::StreamUsage,
    default_model: String,
    tokenizer: Tokenizer,
    /// Where replies say how many tokens were put into the prefix cache.
    creates_cache: Option<ChatSupport>,
}

/// What the client wants to see in the reply.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wishes {
    pub(super) n: usize,
    pub(super) logprobs: Option<usize>,
    pub(super) tokens_as_ids: bool,
    pub(super) return_token_ids: bool,
    pub(super) usage: super::openai::StreamUsage,
}

impl Envelope {
    pub(super) fn new(engine: &Engine, id: String, prompts: Vec<Vec<u32>>, wishes: Wishes) -> Self {
        let Wishes { n, logprobs, tokens_as_ids, return_token_ids, usage } = wishes;
        Self {
            id,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            prompts,
            n,
            logprobs,
            tokens_as_ids,
            return_token_ids,
            usage,
            default_model: engine.capabilities().model.clone(),
            tokenizer: engine.tokenizer().clone(),
            creates_cache: None,
        }
    }

    /// The same with how many tokens were put into the prefix cache, which chat completions tell.
    pub(super) fn with_created_cache_tokens(self, chat: &ChatSupport) -> Self {
        Self { creates_cache: Some(chat.clone()), ..self }
    }

    fn created_cache_tokens(&self, cached_tokens: Option<usize>) -> Option<usize> {
        self.creates_cache.as_ref()?.created_cache_tokens(self.prompt_tokens(), cached_tokens?)
    }

    /// The name under which the server answers for the model, known once it has.
    pub(super) fn model<'a>(&'a self, prefill: &'a Prefill) -> &'a str {
        prefill.model.as_deref().unwrap_or(&self.default_model)
    }

    /// The prompt of choice `index`.
    pub(super) fn prompt(&self, index: usize) -> &[u32] {
        &self.prompts[index / self.n]
    }

    /// The tokens of all prompts, each once.
    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(Vec::len).sum()
    }

    /// The accounting of a whole reply.
    pub(super) fn whole_usage(&self, outputs: &[Output]) -> Usage {
        // As the server does, for the last prompt, and of its outputs for the last one, to which the others have left all of
        // the prompt that can be left.
        let last = &outputs[outputs.len() - self.n..];
        let cached_tokens = last.iter().filter_map(|output| output.prefill.cached_tokens).max();
        let completion_tokens = outputs.iter().map(|output| output.tokens.len()).sum();
        let mut usage = Usage::new(self.prompt_tokens(), completion_tokens, cached_tokens);
        if let Some(details) = &mut usage.prompt_tokens_details {
            details.created_cache_tokens = self.created_cache_tokens(cached_tokens);
        }
        usage
    }

    /// The accounting at the end of a stream, if the client wants it.
    pub(super) fn last_usage(&self, prefill: &Prefill, progress: &[Progress]) -> Option<BriefUsage> {
        let completion_tokens = progress.iter().map(|progress| progress.ids.len()).sum();
        let created_cache_tokens = self.created_cache_tokens(prefill.cached_tokens);
        let details = |cached_tokens| BriefDetails { cached_tokens, created_cache_tokens };
        self.usage.last.then(|| BriefUsage {
            prompt_tokens_details: prefill.cached_tokens.map(details),
            ..BriefUsage::new(self.prompt_tokens(), completion_tokens)
        })
    }

    /// The accounting of choice `index` after `completion_tokens`, if the client wants it with each chunk.
    pub(super) fn usage_so_far(&self, index: usize, completion_tokens: usize) -> Option<BriefUsage> {
        self.usage.continuous.then(|| BriefUsage::new(self.prompt(index).len(), completion_tokens))
    }

    /// What the reply calls `token`, which follows the sampled ids `before`.
    pub(super) fn name(&self, token: u32, before: &[u32]) -> Result<String, TextError> {
        if self.tokens_as_ids {
            return Ok(format!("token_id:{token}"));
        }
        self.text(token, before)
    }

    /// The text of `token`, which follows the sampled ids `before`.
    pub(super) fn text(&self, token: u32, before: &[u32]) -> Result<String, TextError> {
        token_text(&self.tokenizer, token, before)
    }
}

/// A token's likeliest companions in the server's order, which puts the token itself first. `most` counts those beside it.
pub(super) fn companions(scored: &Scored, most: usize) -> impl Iterator<Item = (u32, f64, Option<u32>)> {
    let own = (scored.token, scored.logprob, scored.rank);
    let ranked = scored.top.iter().take(most).enumerate();
    let others = ranked
        .filter(|(_, entry)| entry.token != scored.token)
        .map(|(at, entry)| (entry.token, entry.logprob, Some(at as u32 + 1)));
    std::iter::once(own).chain(others)
}

/// Token accounting with every field that the server has.
#[derive(Serialize)]
pub(super) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<PromptTokensDetails>,
    completion_tokens_details: (),
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
    created_cache_tokens: Option<usize>,
    multimodal_tokens: (),
}

impl Usage {
    pub(super) fn new(prompt_tokens: usize, completion_tokens: usize, cached_tokens: Option<usize>) -> Self {
        Self {
            prompt_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            completion_tokens,
            prompt_tokens_details: cached_tokens.map(|cached_tokens| PromptTokensDetails {
                cached_tokens,
                created_cache_tokens: None,
                multimodal_tokens: (),
            }),
            completion_tokens_details: (),
        }
    }
}

/// Token accounting with nothing that is absent.
#[derive(Serialize)]
pub(super) struct BriefUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<BriefDetails>,
}

#[derive(Serialize)]
struct BriefDetails {
    cached_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_cache_tokens: Option<usize>,
}

impl BriefUsage {
    fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        Self { prompt_tokens, total_tokens, completion_tokens, prompt_tokens_details: None }
    }
}

/// What a choice stopped at.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Stop<'a> {
    Token(u32),
    Text(&'a str),
}

pub(super) fn finish_reason(finish: Option<&Finish>) -> Option<&'static str> {
    Some(match finish?.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    })
}

pub(super) fn stop_reason(finish: Option<&Finish>) -> Option<Stop<'_>> {
    match finish?.stop.as_ref()? {
        StopReason::Token(token) => Some(Stop::Token(*token)),
        StopReason::Text(text) => Some(Stop::Text(text)),
    }
}

/// The prompt's log-probabilities as the server wrote them.
pub(super) fn as_written(json: Option<&Arc<str>>) -> Option<Box<RawValue>> {
    // What was read as JSON once is JSON.
    RawValue::from_string(json?.to_string()).ok()
}

/// JSON knows no infinity.
pub(super) fn at_least(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}

/// The JSON of a reply, which holds nothing that has none.
pub(super) fn to_json(reply: &impl Serialize) -> Bytes {
    serde_json::to_vec(reply).unwrap_or_default().into()
}

/// What a request and the rollouts made for it are called: by the header, by the body's own field, or at random.
pub(super) fn request_name(headers: &http::HeaderMap, given: Option<&str>) -> String {
    // The server reads headers as Latin-1, in which every byte is a character.
    let as_text = |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    let by_header = headers.get("x-request-id").map(as_text);
    let given = by_header.or_else(|| given.map(str::to_owned));
    given.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_request_in_latin_1() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(request_name(&headers, Some("given")), "given");
        assert_eq!(request_name(&headers, None).len(), 16);
        headers.insert("x-request-id", http::HeaderValue::from_bytes(b"\xe4 b/c").unwrap());
        assert_eq!(request_name(&headers, Some("given")), "ä b/c");
    }
}
