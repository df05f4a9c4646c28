//! The reply, in the shape of vLLM 0.32 (`vllm/entrypoints/openai/chat_completion/serving.py`): the same fields in the
//! same order, nulls included.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::reply::{
    BriefUsage, Dialect, Envelope, Output, Progress, Stop, Usage, as_written, at_least, companions, finish_reason,
    stop_reason, to_json,
};
use crate::rollout::Delta;
use crate::speculation::Scored;
use crate::text::TextError;
use crate::verify::Prefill;

/// Replies to one chat completion request.
pub(super) struct Chat {
    pub(super) envelope: Envelope,
    /// Who speaks.
    pub(super) role: String,
    /// What is put before the reply's own text.
    pub(super) echo: Option<String>,
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
    prompt_logprobs: Option<Box<RawValue>>,
    prompt_token_ids: Option<&'a [u32]>,
    prompt_text: (),
    kv_transfer_params: (),
    ec_transfer_params: (),
    metrics: (),
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<Stop<'a>>,
    token_ids: Option<Vec<u32>>,
    routed_experts: (),
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: String,
    refusal: (),
    annotations: (),
    audio: (),
    function_call: (),
    reasoning: (),
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Content>,
}

#[derive(Serialize)]
struct Content {
    #[serde(flatten)]
    token: Named,
    top_logprobs: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    #[serde(flatten)]
    prompt: Option<Prompt<'a>>,
}

/// What the first chunk of each choice tells of the prompt.
#[derive(Serialize)]
struct Prompt<'a> {
    prompt_token_ids: Option<&'a [u32]>,
    prompt_text: (),
}

#[derive(Serialize)]
struct ChunkUsage {
    #[serde(flatten)]
    usage: BriefUsage,
    /// `null` in the middle of a stream, absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<()>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: DeltaMessage<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<Stop<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Option<Vec<u32>>>,
}

#[derive(Serialize)]
struct DeltaMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    content: &'a str,
}

impl<'a> ChunkChoice<'a> {
    /// A choice of text that nobody sampled.
    fn of_text(index: usize, role: Option<&'a str>, content: &'a str) -> Self {
        let delta = DeltaMessage { role, content };
        Self { index, delta, logprobs: None, finish_reason: None, stop_reason: None, token_ids: None }
    }
}

impl Chat {
    fn chunk_of<'a>(&'a self, prefill: &'a Prefill, choices: Vec<ChunkChoice<'a>>) -> Chunk<'a> {
        Chunk {
            id: &self.envelope.id,
            object: "chat.completion.chunk",
            created: self.envelope.created,
            model: self.envelope.model(prefill),
            choices,
            usage: None,
            system_fingerprint: None,
            prompt: None,
        }
    }

    fn usage_so_far(&self, index: usize, completion_tokens: usize) -> Option<ChunkUsage> {
        let usage = self.envelope.usage_so_far(index, completion_tokens)?;
        Some(ChunkUsage { usage, completion_tokens_details: Some(()) })
    }

    /// The log-probabilities of `tokens`, which follow the ids `before` in their choice; absent if the client did not
    /// ask.
    fn logprobs(&self, tokens: &[Scored], before: &[u32]) -> Result<Option<Logprobs>, TextError> {
        let Some(count) = self.envelope.logprobs else { return Ok(None) };
        let mut ids = before.to_vec();
        let mut content = Vec::with_capacity(tokens.len());
        for scored in tokens {
            let mut top = Vec::with_capacity(count);
            for (token, logprob, _) in companions(scored, count).take(count) {
                let token = self.envelope.name(token, &ids)?;
                top.push(Named { bytes: token.as_bytes().to_vec(), logprob: at_least(logprob), token });
            }
            let token = Named {
                token: self.envelope.name(scored.token, &ids)?,
                logprob: at_least(scored.logprob),
                bytes: self.envelope.text(scored.token, &ids)?.into_bytes(),
            };
            content.push(Content { token, top_logprobs: top });
            ids.push(scored.token);
        }
        Ok(Some(Logprobs { content }))
    }
}

impl Dialect for Chat {
    fn whole(&self, outputs: &[Output]) -> Result<Bytes, TextError> {
        let envelope = &self.envelope;
        let first = &outputs[0];
        let mut choices = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            choices.push(Choice {
                index,
                message: Message {
                    role: &self.role,
                    content: format!("{}{}", self.echo.as_deref().unwrap_or_default(), output.text),
                    refusal: (),
                    annotations: (),
                    audio: (),
                    function_call: (),
                    reasoning: (),
                },
                logprobs: self.logprobs(&output.tokens, &[])?,
                finish_reason: finish_reason(output.finish.as_ref()),
                stop_reason: stop_reason(output.finish.as_ref()),
                token_ids: envelope.return_token_ids.then(|| output.ids()),
                routed_experts: (),
            });
        }
        Ok(to_json(&Completion {
            id: &envelope.id,
            object: "chat.completion",
            created: envelope.created,
            model: envelope.model(&first.prefill),
            choices,
            service_tier: (),
            system_fingerprint: first.prefill.fingerprint.as_deref(),
            usage: envelope.whole_usage(outputs),
            prompt_logprobs: as_written(first.prefill.prompt_logprobs.as_ref()),
            prompt_token_ids: envelope.return_token_ids.then(|| envelope.prompt(0)),
            prompt_text: (),
            kv_transfer_params: (),
            ec_transfer_params: (),
            metrics: (),
        }))
    }

    fn opening(&self, prefill: &Prefill) -> Vec<Bytes> {
        let envelope = &self.envelope;
        let roles = (0..envelope.n).map(|index| {
            to_json(&Chunk {
                usage: self.usage_so_far(index, 0),
                prompt: Some(Prompt {
                    prompt_token_ids: envelope.return_token_ids.then(|| envelope.prompt(index)),
                    prompt_text: (),
                }),
                ..self.chunk_of(prefill, vec![ChunkChoice::of_text(index, Some(&self.role), "")])
            })
        });
        // The server leaves out an echo of nothing.
        let echo = self.echo.as_deref().filter(|text| !text.is_empty());
        let echoes = echo.into_iter().flat_map(|text| {
            (0..envelope.n).map(move |index| {
                to_json(&Chunk {
                    usage: self.usage_so_far(index, 0),
                    ..self.chunk_of(prefill, vec![ChunkChoice::of_text(index, None, text)])
                })
            })
        });
        roles.chain(echoes).collect()
    }

    fn chunk(
        &self,
        prefill: &Prefill,
        index: usize,
        progress: &mut Progress,
        delta: &Delta,
    ) -> Result<Option<Bytes>, TextError> {
        let envelope = &self.envelope;
        if delta.tokens.is_empty() && delta.text.is_empty() && progress.ids.is_empty() {
            return Ok(None);
        }
        let token_ids = || delta.tokens.iter().map(|scored| scored.token).collect();
        let over = delta.finish.is_some();
        let choice = ChunkChoice {
            index,
            delta: DeltaMessage { role: None, content: &delta.text },
            logprobs: self.logprobs(&delta.tokens, &progress.ids)?,
            finish_reason: finish_reason(delta.finish.as_ref()),
            stop_reason: over.then(|| stop_reason(delta.finish.as_ref())),
            token_ids: Some(envelope.return_token_ids.then(token_ids)),
        };
        let last_word = over && !envelope.usage.last;
        Ok(Some(to_json(&Chunk {
            usage: self.usage_so_far(index, progress.ids.len() + delta.tokens.len()),
            system_fingerprint: prefill.fingerprint.as_deref().filter(|_| last_word),
            ..self.chunk_of(prefill, vec![choice])
        })))
    }

    fn closing(&self, prefill: &Prefill, progress: &[Progress]) -> Option<Bytes> {
        let usage = self.envelope.last_usage(prefill, progress)?;
        Some(to_json(&Chunk {
            usage: Some(ChunkUsage { usage, completion_tokens_details: None }),
            system_fingerprint: prefill.fingerprint.as_deref(),
            ..self.chunk_of(prefill, Vec::new())
        }))
    }
}
