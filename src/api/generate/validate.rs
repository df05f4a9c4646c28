//! From what came over the wire to what can be speculated, or the reason to forward it.

use super::types::{GenerateRequest, SamplingParams};
use crate::api::openai::{OneOrMany, StreamUsage, logit_bias};
use crate::api::reason::Reason;
use crate::api::reply::Wishes;
use crate::api::sampling::Params;
use crate::rollout::TextRules;
use crate::upstream::{Capabilities, Constraints, Origin, Route, SamplingFields};
use crate::verify::{PrefillWishes, Strategy};

/// A request with nothing in it that is not speculated.
#[derive(Debug)]
pub(super) struct Validated {
    pub(super) prompt: Vec<u32>,
    pub(super) params: Params,
    pub(super) origin: Origin,
    pub(super) request_id: Option<String>,
    pub(super) stream: bool,
    pub(super) wishes: Wishes,
}

/// Decides whether a request can be speculated.
pub(super) fn validate(
    headers: &http::HeaderMap,
    body: &[u8],
    capabilities: &Capabilities,
) -> Result<Validated, Reason> {
    let request: GenerateRequest = serde_json::from_slice(body).map_err(|_| Reason::Malformed)?;
    let sampling = request.sampling_params;
    if let Some(field) = request.unknown.keys().chain(sampling.unknown.keys()).next() {
        return Err(Reason::UnknownField(field.clone()));
    }
    Reason::first(&[
        (request.features.is_some() || request.content_parts.is_some(), "multimodal"),
        (request.reasoning_ended.is_some() || request.reasoning_parser_kwargs.is_some(), "reasoning"),
        (request.output_mode.as_deref().is_some_and(|mode| mode != "tokens"), "output_mode"),
        (request.kv_transfer_params.is_some(), "kv_transfer_params"),
        (request.ec_transfer_params.is_some(), "ec_transfer_params"),
    ])?;
    check_features(&sampling)?;
    if request.cache_salt.as_ref().is_some_and(|salt| !(1..=1024).contains(&salt.chars().count())) {
        return Err(Reason::Invalid);
    }
    let stream = request.stream == Some(true);
    let params = params(sampling, stream, capabilities)?;
    let wishes = Wishes {
        n: params.n,
        logprobs: params.logprobs,
        tokens_as_ids: true,
        return_token_ids: request.return_token_ids == Some(true),
        usage: StreamUsage::new(request.stream_options.as_ref(), stream)?,
    };
    let origin =
        Origin { cache_salt: request.cache_salt, priority: request.priority, ..Origin::new(headers, request.model) };
    Ok(Validated { prompt: request.token_ids, params, origin, request_id: request.request_id, stream, wishes })
}

/// Finds the first thing that is not speculated.
fn check_features(sampling: &SamplingParams) -> Result<(), Reason> {
    Reason::first(&[
        (sampling.presence_penalty != 0.0, "presence_penalty"),
        (sampling.frequency_penalty != 0.0, "frequency_penalty"),
        (sampling.watermarking.is_some(), "watermarking"),
        (sampling.prompt_logprob_token_ids.is_some(), "prompt_logprob_token_ids"),
        (sampling.prompt_logprob_start.is_some(), "prompt_logprob_start"),
        (sampling.logprob_token_ids.is_some(), "logprob_token_ids"),
        (sampling.stream_interval.is_some(), "stream_interval"),
        (sampling.structured_outputs.is_some(), "structured_outputs"),
        (sampling.extra_args.is_some(), "vllm_xargs"),
        (sampling.skip_reading_prefix_cache.is_some(), "skip_reading_prefix_cache"),
        (sampling.thinking_token_budget.is_some(), "thinking_token_budget"),
        (sampling.repetition_detection.is_some(), "repetition_detection"),
        (sampling.trace_decode_token_ids.is_some(), "trace_decode_token_ids"),
        (sampling.logprobs == Some(-1) || sampling.prompt_logprobs == Some(-1), "all_logprobs"),
    ])
}

fn params(sampling: SamplingParams, stream: bool, capabilities: &Capabilities) -> Result<Params, Reason> {
    let count = |value: i64| usize::try_from(value).map_err(|_| Reason::Invalid);
    let long = |value: u64| usize::try_from(value).map_err(|_| Reason::Invalid);
    let logit_bias = logit_bias(sampling.logit_bias.unwrap_or_default())?;
    let stop = sampling.stop.map(OneOrMany::list).unwrap_or_default();
    if sampling.output_kind > 2 || (!sampling.detokenize && !stop.is_empty()) {
        return Err(Reason::Invalid);
    }
    // Only this route tells ranks, and it does not clamp what it adds to logits; the completions route does for it in
    // front of a server that has not got it.
    let route = if Strategy::CachedSuffix.is_available(capabilities) { Route::Generate } else { Route::Completions };
    if route == Route::Completions && logit_bias.iter().any(|(_, bias)| bias.abs() > 100.0) {
        return Err(Reason::Feature("logit_bias"));
    }
    // A stream has no place for them.
    let prompt_logprobs = sampling.prompt_logprobs.filter(|_| !stream).map(count).transpose()?;
    Ok(Params {
        n: sampling.n,
        fields: SamplingFields {
            temperature: Some(sampling.temperature),
            top_k: Some(sampling.top_k),
            top_p: Some(sampling.top_p),
            min_p: Some(sampling.min_p),
            repetition_penalty: Some(sampling.repetition_penalty),
        },
        takes_defaults: false,
        constraints: Constraints {
            logit_bias,
            allowed_token_ids: sampling.allowed_token_ids,
            bad_words: sampling.bad_words.unwrap_or_default(),
            min_tokens: long(sampling.min_tokens)?,
            stop_token_ids: sampling.stop_token_ids.unwrap_or_default(),
            ignore_eos: sampling.ignore_eos,
        },
        max_tokens: sampling.max_tokens.map(long).transpose()?,
        stop,
        include_stop_str_in_output: sampling.include_stop_str_in_output,
        text: TextRules {
            skip_special_tokens: sampling.skip_special_tokens,
            spaces_between_special_tokens: sampling.spaces_between_special_tokens,
        },
        seed: sampling.seed.filter(|seed| *seed != -1),
        logprobs: sampling.logprobs.map(count).transpose()?,
        prefill: PrefillWishes { prompt_logprobs, detokenize: sampling.detokenize, is_streamed: stream },
        route,
    })
}
