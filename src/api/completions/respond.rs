//! The reply, in the shape of vLLM 0.32 (`vllm/entrypoints/openai/completion/serving.py`): the same fields in the same
//! order, nulls included.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::api::reply::{
    BriefUsage, Dialect, Envelope, Output, Progress, Stop, Usage, as_written, at_least, companions, finish_reason,
    stop_reason, to_json,
};
use crate::rollout::Delta;
use crate::speculation::Scored;
use crate::text::TextError;
use crate::verify::Prefill;

/// Replies to one completion request.
pub(super) struct Completions(pub(super) Envelope);

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
    prompt_logprobs: Option<Box<RawValue>>,
    prompt_token_ids: Option<&'a [u32]>,
    routed_experts: (),
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<BriefUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<Stop<'a>>,
    prompt_token_ids: Option<&'a [u32]>,
    token_ids: Option<Vec<u32>>,
}

/// Log-probabilities of a choice's tokens.
#[derive(Debug, Serialize)]
struct Logprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<f64>,
    tokens: Vec<String>,
    top_logprobs: Vec<TopLogprobs>,
}

impl Logprobs {
    /// Where the next token's text will start, in characters.
    fn end(&self) -> Option<usize> {
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

impl Completions {
    /// The log-probabilities of `tokens`, which follow the ids `before` in their choice and start `offset` characters
    /// into its text; absent if the client did not ask.
    fn logprobs(&self, tokens: &[Scored], before: &[u32], offset: usize) -> Result<Option<Logprobs>, TextError> {
        let Some(count) = self.0.logprobs else { return Ok(None) };
        let mut logprobs = Logprobs {
            text_offset: Vec::with_capacity(tokens.len()),
            token_logprobs: Vec::with_capacity(tokens.len()),
            tokens: Vec::with_capacity(tokens.len()),
            top_logprobs: Vec::with_capacity(tokens.len()),
        };
        let mut ids = before.to_vec();
        let mut at = offset;
        for scored in tokens {
            let mut top: Vec<(String, f64)> = Vec::with_capacity(count + 1);
            for (token, logprob, _) in companions(scored, count) {
                let named = (self.0.name(token, &ids)?, at_least(logprob));
                // Different tokens may have the same text: the last value stays, in the first one's place.
                match top.iter_mut().find(|(other, _)| *other == named.0) {
                    Some(same) => same.1 = named.1,
                    None => top.push(named),
                }
            }
            let name = self.0.name(scored.token, &ids)?;
            logprobs.text_offset.push(at);
            at += name.chars().count();
            logprobs.token_logprobs.push(at_least(scored.logprob));
            logprobs.tokens.push(name);
            logprobs.top_logprobs.push(TopLogprobs(top));
            ids.push(scored.token);
        }
        Ok(Some(logprobs))
    }
}

impl Dialect for Completions {
    fn whole(&self, outputs: &[Output]) -> Result<Bytes, TextError> {
        let envelope = &self.0;
        let mut choices = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            choices.push(Choice {
                index,
                text: &output.text,
                logprobs: self.logprobs(&output.tokens, &[], 0)?,
                finish_reason: finish_reason(output.finish.as_ref()),
                stop_reason: stop_reason(output.finish.as_ref()),
                token_ids: envelope.return_token_ids.then(|| output.ids()),
                prompt_logprobs: as_written(output.prefill.prompt_logprobs.as_ref()),
                prompt_token_ids: envelope.return_token_ids.then(|| envelope.prompt(index)),
                routed_experts: (),
            });
        }
        Ok(to_json(&Completion {
            id: &envelope.id,
            object: "text_completion",
            created: envelope.created,
            model: envelope.model(&outputs[0].prefill),
            choices,
            service_tier: (),
            system_fingerprint: outputs[0].prefill.fingerprint.as_deref(),
            usage: envelope.whole_usage(outputs),
            kv_transfer_params: (),
            ec_transfer_params: (),
            metrics: (),
        }))
    }

    fn chunk(
        &self,
        prefill: &Prefill,
        index: usize,
        progress: &mut Progress,
        delta: &Delta,
    ) -> Result<Option<Bytes>, TextError> {
        let envelope = &self.0;
        if delta.tokens.is_empty() && delta.text.is_empty() && progress.ids.is_empty() {
            return Ok(None);
        }
        let logprobs = self.logprobs(&delta.tokens, &progress.ids, progress.offset)?;
        progress.offset = logprobs.as_ref().and_then(Logprobs::end).unwrap_or(progress.offset);
        let token_ids = || delta.tokens.iter().map(|scored| scored.token).collect();
        let last_word = delta.finish.is_some() && !envelope.usage.last;
        let shows_prompt = envelope.return_token_ids && progress.ids.is_empty();
        Ok(Some(to_json(&Chunk {
            id: &envelope.id,
            object: "text_completion",
            created: envelope.created,
            model: envelope.model(prefill),
            choices: vec![ChunkChoice {
                index,
                text: &delta.text,
                logprobs,
                finish_reason: finish_reason(delta.finish.as_ref()),
                stop_reason: stop_reason(delta.finish.as_ref()),
                prompt_token_ids: shows_prompt.then(|| envelope.prompt(index)),
                token_ids: envelope.return_token_ids.then(token_ids),
            }],
            usage: envelope.usage_so_far(index, progress.ids.len() + delta.tokens.len()),
            system_fingerprint: prefill.fingerprint.as_deref().filter(|_| last_word),
        })))
    }

    fn closing(&self, prefill: &Prefill, progress: &[Progress]) -> Option<Bytes> {
        let envelope = &self.0;
        let usage = envelope.last_usage(prefill, progress)?;
        Some(to_json(&Chunk {
            id: &envelope.id,
            object: "text_completion",
            created: envelope.created,
            model: envelope.model(prefill),
            choices: Vec::new(),
            usage: Some(usage),
            system_fingerprint: prefill.fingerprint.as_deref(),
        }))
    }
}
