//! The reply, in the shape of vLLM 0.32 (`vllm/entrypoints/scale_out/token_in_token_out/serving.py`): the same fields in
//! the same order, nulls included.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::reply::{
    BriefUsage, Dialect, Envelope, Output, Progress, Stop, Usage, as_written, at_least, companions, finish_reason,
    stop_reason, to_json,
};
use crate::rollout::{Delta, Finish};
use crate::speculation::Scored;
use crate::text::TextError;
use crate::upstream::VersionSpan;
use crate::verify::Prefill;

/// Replies to one generate request.
pub(super) struct Generate(pub(super) Envelope);

#[derive(Serialize)]
struct Reply<'a> {
    request_id: &'a str,
    model: &'a str,
    created: u64,
    usage: Usage,
    prompt_logprobs: Option<Box<RawValue>>,
    prompt_token_id_logprobs: (),
    prompt_token_ids: Option<&'a [u32]>,
    mm_placeholders: (),
    metrics: (),
    kv_transfer_params: (),
    ec_transfer_params: (),
    output_mode: &'static str,
    choices: Vec<Choice<'a>>,
}

#[derive(Serialize)]
struct Chunk<'a, U: Serialize> {
    request_id: &'a str,
    #[serde(flatten)]
    usage: U,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    output_mode: &'static str,
    choices: Vec<Choice<'a>>,
}

/// The accounting with every field that the server has, or `null`.
#[derive(Serialize)]
struct WithUsage {
    usage: Option<Usage>,
}

/// The accounting with nothing that is absent.
#[derive(Serialize)]
struct WithBriefUsage {
    usage: BriefUsage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    finish_reason: Option<&'static str>,
    stop_reason: Option<Stop<'a>>,
    token_ids: Vec<u32>,
    routed_experts: (),
    sampling_mask: (),
    weight_versions: Option<&'a [VersionSpan]>,
    logprobs: Option<Logprobs>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Content>,
}

#[derive(Serialize)]
struct Content {
    #[serde(flatten)]
    token: Ranked,
    top_logprobs: Vec<Ranked>,
}

#[derive(Serialize)]
struct Ranked {
    token_id: u32,
    logprob: f64,
    rank: Option<u32>,
}

impl Ranked {
    fn new((token_id, logprob, rank): (u32, f64, Option<u32>)) -> Self {
        Self { token_id, logprob: at_least(logprob), rank }
    }
}

impl Generate {
    fn logprobs(&self, tokens: &[Scored]) -> Option<Logprobs> {
        let count = self.0.logprobs?;
        // The token itself is one of those asked for, and is listed also where none was.
        let content = tokens.iter().map(|scored| Content {
            token: Ranked::new((scored.token, scored.logprob, scored.rank)),
            top_logprobs: companions(scored, count).take(count.max(1)).map(Ranked::new).collect(),
        });
        Some(Logprobs { content: content.collect() })
    }

    fn choice<'a>(
        &self,
        index: usize,
        tokens: &[Scored],
        finish: Option<&'a Finish>,
        versions: Option<&'a [VersionSpan]>,
    ) -> Choice<'a> {
        Choice {
            index,
            finish_reason: finish_reason(finish),
            stop_reason: stop_reason(finish),
            token_ids: tokens.iter().map(|scored| scored.token).collect(),
            routed_experts: (),
            sampling_mask: (),
            // A rollout that was aborted before its first token has none.
            weight_versions: versions.filter(|spans| !spans.is_empty()),
            logprobs: self.logprobs(tokens),
        }
    }
}

impl Dialect for Generate {
    fn whole(&self, outputs: &[Output]) -> Result<Bytes, TextError> {
        let envelope = &self.0;
        let first = &outputs[0];
        let choices = outputs
            .iter()
            .enumerate()
            .map(|(index, output)| self.choice(index, &output.tokens, output.finish.as_ref(), Some(&output.versions)));
        Ok(to_json(&Reply {
            request_id: &envelope.id,
            model: envelope.model(&first.prefill),
            created: envelope.created,
            usage: envelope.whole_usage(outputs),
            prompt_logprobs: as_written(first.prefill.prompt_logprobs.as_ref()),
            prompt_token_id_logprobs: (),
            prompt_token_ids: envelope.return_token_ids.then(|| envelope.prompt(0)),
            mm_placeholders: (),
            metrics: (),
            kv_transfer_params: (),
            ec_transfer_params: (),
            output_mode: "tokens",
            choices: choices.collect(),
        }))
    }

    fn chunk(
        &self,
        _prefill: &Prefill,
        index: usize,
        progress: &mut Progress,
        delta: &Delta,
    ) -> Result<Option<Bytes>, TextError> {
        let envelope = &self.0;
        if delta.tokens.is_empty() && delta.finish.is_none() {
            return Ok(None);
        }
        let completion_tokens = progress.ids.len() + delta.tokens.len();
        let usage = envelope.usage.continuous.then(|| Usage::new(envelope.prompt(0).len(), completion_tokens, None));
        // The prompt is told once, whichever choice comes first.
        let shows_prompt = envelope.return_token_ids && index == 0 && progress.ids.is_empty();
        Ok(Some(to_json(&Chunk {
            request_id: &envelope.id,
            usage: WithUsage { usage },
            prompt_token_ids: shows_prompt.then(|| envelope.prompt(0)),
            output_mode: "tokens",
            choices: vec![self.choice(index, &delta.tokens, delta.finish.as_ref(), delta.versions.as_deref())],
        })))
    }

    fn closing(&self, prefill: &Prefill, progress: &[Progress]) -> Option<Bytes> {
        let usage = self.0.last_usage(prefill, progress)?;
        Some(to_json(&Chunk {
            request_id: &self.0.id,
            usage: WithBriefUsage { usage },
            prompt_token_ids: None,
            output_mode: "tokens",
            choices: Vec::new(),
        }))
    }
}
