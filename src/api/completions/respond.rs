//! The reply, in the shape of vLLM 0.32 (`vllm/entrypoints/openai/completion/serving.py`): the same fields in the same
//! order, nulls included.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::body::Body;
use super::super::error::error_response;
use super::validate::Validated;
use crate::rollout::{Delta, Engine, Finish, FinishReason, StopReason};
use crate::speculation::Scored;
use crate::text::{TextError, Tokenizer, token_text};
use crate::verify::Prefill;

/// What all replies to a request have in common.
pub(super) struct Context {
    pub(super) request: Validated,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) prompts: Vec<Vec<u32>>,
    default_model: String,
    tokenizer: Tokenizer,
}

/// One choice as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) tokens: Vec<Scored>,
    pub(super) text: String,
    pub(super) finish: Option<Finish>,
    pub(super) prefill: Prefill,
}

impl Output {
    pub(super) fn add(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        self.text.push_str(&delta.text);
        self.finish = delta.finish;
        if let Some(prefill) = delta.prefill {
            self.prefill = prefill;
        }
    }
}

/// The reply to a request whose rollout ended without a word, which only a panic brings about.
pub(super) fn vanished() -> Response<Body> {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the rollout ended unexpectedly")
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    service_tier: (),
    system_fingerprint: Option<&'a str>,
    usage: Usage,
    kv_transfer_params: (),
    ec_transfer_params: (),
    metrics: (),
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<Stop<'a>>,
    token_ids: Option<Vec<u32>>,
    prompt_logprobs: (),
    prompt_token_ids: Option<&'a [u32]>,
    routed_experts: (),
}

/// Token accounting of a whole request.
#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<PromptTokensDetails>,
    completion_tokens_details: (),
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: usize,
    created_cache_tokens: (),
    multimodal_tokens: (),
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Stop<'a> {
    Token(u32),
    Text(&'a str),
}

/// Log-probabilities of a choice's tokens.
#[derive(Debug, Serialize)]
pub(super) struct Logprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<f64>,
    tokens: Vec<String>,
    top_logprobs: Vec<TopLogprobs>,
}

impl Logprobs {
    /// Where the next token's text will start, in characters.
    pub(super) fn end(&self) -> Option<usize> {
        Some(self.text_offset.last()? + self.tokens.last()?.chars().count())
    }
}

/// A JSON object in the server's order.
#[derive(Debug)]
struct TopLogprobs(Vec<(String, f64)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

pub(super) fn finish_reason(finish: &Finish) -> &'static str {
    match finish.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

pub(super) fn stop_reason(finish: &Finish) -> Option<Stop<'_>> {
    match finish.stop.as_ref()? {
        StopReason::Token(token) => Some(Stop::Token(*token)),
        StopReason::Text(text) => Some(Stop::Text(text)),
    }
}

impl Context {
    pub(super) fn new(
        engine: &Engine,
        head: &http::request::Parts,
        request: Validated,
        prompts: Vec<Vec<u32>>,
    ) -> Self {
        let by_header = head.headers.get("x-request-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let base = by_header.or_else(|| request.request_id.clone());
        let base = base.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()[..16].to_owned());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            id: format!("cmpl-{base}"),
            created,
            prompts,
            default_model: engine.capabilities().model.clone(),
            tokenizer: engine.tokenizer().clone(),
            request,
        }
    }

    /// The name under which the server answers for the model, known once it has.
    pub(super) fn model<'a>(&'a self, prefill: &'a Prefill) -> &'a str {
        prefill.model.as_deref().unwrap_or(&self.default_model)
    }

    /// The tokens of all prompts, each once.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(Vec::len).sum()
    }

    /// The whole reply to a request that is not streamed.
    pub(super) fn completion(&self, outputs: &[Output]) -> Result<Bytes, TextError> {
        let mut choices = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            let ids = || output.tokens.iter().map(|scored| scored.token).collect();
            choices.push(Choice {
                index,
                text: &output.text,
                logprobs: self.logprobs(&output.tokens, &[], 0)?,
                finish_reason: output.finish.as_ref().map(finish_reason),
                stop_reason: output.finish.as_ref().and_then(stop_reason),
                token_ids: self.request.return_token_ids.then(ids),
                prompt_logprobs: (),
                prompt_token_ids: self.request.return_token_ids.then(|| &*self.prompts[index / self.request.n]),
                routed_experts: (),
            });
        }
        let completion_tokens = outputs.iter().map(|output| output.tokens.len()).sum();
        let prompt_tokens = self.prompt_tokens();
        // As the server does, for the last prompt.
        let last = outputs.len() - self.request.n;
        let cached_tokens = outputs[last].prefill.cached_tokens;
        let completion = Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: self.model(&outputs[0].prefill),
            choices,
            service_tier: (),
            system_fingerprint: outputs[0].prefill.fingerprint.as_deref(),
            usage: Usage {
                prompt_tokens,
                total_tokens: prompt_tokens + completion_tokens,
                completion_tokens,
                prompt_tokens_details: cached_tokens.map(|cached_tokens| PromptTokensDetails {
                    cached_tokens,
                    created_cache_tokens: (),
                    multimodal_tokens: (),
                }),
                completion_tokens_details: (),
            },
            kv_transfer_params: (),
            ec_transfer_params: (),
            metrics: (),
        };
        Ok(to_json(&completion))
    }

    /// The log-probabilities of `tokens`, which follow the ids `before` in their choice and start `offset` characters
    /// into its text; absent if the client did not ask.
    pub(super) fn logprobs(
        &self,
        tokens: &[Scored],
        before: &[u32],
        offset: usize,
    ) -> Result<Option<Logprobs>, TextError> {
        let Some(count) = self.request.logprobs else { return Ok(None) };
        let mut logprobs = Logprobs {
            text_offset: Vec::with_capacity(tokens.len()),
            token_logprobs: Vec::with_capacity(tokens.len()),
            tokens: Vec::with_capacity(tokens.len()),
            top_logprobs: Vec::with_capacity(tokens.len()),
        };
        let mut ids = before.to_vec();
        let mut at = offset;
        for scored in tokens {
            let name = self.name(scored.token, &ids)?;
            let mut top = vec![(name.clone(), at_least(scored.logprob))];
            for entry in scored.top.iter().take(count).filter(|entry| entry.token != scored.token) {
                let named = (self.name(entry.token, &ids)?, at_least(entry.logprob));
                // Different tokens may have the same text: the last value stays, in the first one's place.
                match top.iter_mut().find(|(other, _)| *other == named.0) {
                    Some(same) => same.1 = named.1,
                    None => top.push(named),
                }
            }
            logprobs.text_offset.push(at);
            at += name.chars().count();
            logprobs.token_logprobs.push(at_least(scored.logprob));
            logprobs.tokens.push(name);
            logprobs.top_logprobs.push(TopLogprobs(top));
            ids.push(scored.token);
        }
        Ok(Some(logprobs))
    }

    fn name(&self, token: u32, before: &[u32]) -> Result<String, TextError> {
        if self.request.tokens_as_ids {
            return Ok(format!("token_id:{token}"));
        }
        token_text(&self.tokenizer, token, before)
    }
}

/// JSON knows no infinity.
fn at_least(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}

/// The JSON of a reply, which holds nothing that has none.
pub(super) fn to_json(reply: &impl Serialize) -> Bytes {
    serde_json::to_vec(reply).unwrap_or_default().into()
}
