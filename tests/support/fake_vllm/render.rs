//! `POST /v1/completions/render` and `/v1/chat/completions/render`: what the server would ask its engine, its own
//! defaults filled in.

use serde_json::Value;

use super::chat::ChatJob;
use super::engine::Engine;
use super::error::ApiError;
use super::ordered::{Json, NULL, obj};
use super::params::{ParamFields, SamplingParams};
use super::prompt::prompts;
use super::reasoning::Splitter;
use super::{validate, wire};

/// One generate request for each prompt.
///
/// # Errors
/// As for a completion.
pub fn completions(engine: &Engine, body: &Value) -> Result<Json, ApiError> {
    let config = &engine.config;
    validate::model(engine, body["model"].as_str())?;
    let asked: ParamFields = validate::parse(body)?;
    let prompts = prompts(engine, &body["prompt"])?;
    let base = format!("cmpl-{}", wire::request_id(body["request_id"].as_str()));
    let mut requests = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let max_tokens = wire::max_tokens(config, Some(asked.max_tokens.unwrap_or(16)), prompt.ids.len());
        let asked = asked.clone().with_defaults(&config.defaults);
        let params = asked.build(max_tokens, |text| engine.codec.encode(text))?;
        let id = if prompts.len() == 1 { base.clone() } else { format!("{base}-{index}") };
        requests.push(request(body, id, &prompt.ids, &params));
    }
    Ok(Json::List(requests))
}

/// One generate request, which says where reasoning stands too.
///
/// # Errors
/// As for a chat.
pub fn chat(engine: &Engine, body: &Value) -> Result<Json, ApiError> {
    let job = ChatJob::new(engine, body)?;
    let mut request = request(body, job.id.clone(), &job.prompt, &job.params);
    let parsed = job.config.think_ids().map(|ids| Splitter::new(ids, &job.prompt).ended());
    request.set("reasoning_ended", if job.fields.include_reasoning { parsed } else { Some(true) });
    if parsed.is_some() {
        let mut kwargs = Json::object([]);
        for (key, value) in body["chat_template_kwargs"].as_object().into_iter().flatten() {
            kwargs.set(key, value.clone());
        }
        kwargs.set("add_generation_prompt", job.fields.add_generation_prompt);
        kwargs.set("continue_final_message", body["continue_final_message"] == true);
        request.set("reasoning_parser_kwargs", obj! {"chat_template_kwargs": kwargs});
    }
    Ok(request)
}

fn request(body: &Value, id: String, prompt: &[u32], params: &SamplingParams) -> Json {
    let stream = body["stream"] == true;
    obj! {
        "request_id": id,
        "token_ids": prompt,
        "token_offsets": NULL,
        "features": NULL,
        "content_parts": NULL,
        "sampling_params": sampling(body, params, stream),
        "model": body["model"].clone(),
        "reasoning_ended": NULL,
        "reasoning_parser_kwargs": NULL,
        "return_token_ids": NULL,
        "output_mode": "tokens",
        "stream": stream,
        "stream_options": if stream { body["stream_options"].clone() } else { Value::Null },
        "cache_salt": body["cache_salt"].clone(),
        "priority": body["priority"].as_i64().unwrap_or(0),
        "kv_transfer_params": NULL,
        "ec_transfer_params": NULL,
    }
}

/// The resolved parameters in the order of vLLM's `SamplingParams`, those left out that are the very object of its
/// default (`omit_defaults`): small numbers and booleans are, 1.0 from another place is not.
fn sampling(body: &Value, params: &SamplingParams, stream: bool) -> Json {
    let mut out = obj! {};
    let mut some = |key: &str, value: Json, default: Json| {
        if value != default {
            out.set(key, value);
        }
    };
    let never = || Json::from("never left out");
    some("n", params.n.into(), 1_usize.into());
    some("presence_penalty", params.presence_penalty.into(), never());
    some("frequency_penalty", params.frequency_penalty.into(), never());
    some("repetition_penalty", params.repetition_penalty.into(), never());
    some("temperature", params.temperature.into(), never());
    some("top_p", params.top_p.into(), never());
    some("top_k", params.top_k.into(), 0_i64.into());
    some("min_p", params.min_p.into(), never());
    some("seed", params.seed.into(), NULL);
    some("stop", params.stop.iter().map(|stop| Json::from(stop.as_str())).collect(), never());
    some("stop_token_ids", params.stop_token_ids[..].into(), never());
    some("ignore_eos", params.ignore_eos.into(), false.into());
    some("max_tokens", params.max_tokens.into(), 16_usize.into());
    some("min_tokens", params.min_tokens.into(), 0_usize.into());
    some("logprobs", params.logprobs.into(), NULL);
    some("prompt_logprobs", params.prompt_logprobs.into(), NULL);
    some("skip_special_tokens", params.skip_special_tokens.into(), true.into());
    some("include_stop_str_in_output", params.include_stop_str_in_output.into(), false.into());
    // DELTA and FINAL_ONLY.
    some("output_kind", (if stream { 1_usize } else { 2 }).into(), never());
    some("skip_clone", true.into(), never());
    let biases = params.logit_bias.iter().map(|(id, bias)| (id.to_string(), Json::from(*bias)));
    some("logit_bias", Json::object(biases), Json::object([]));
    some("allowed_token_ids", params.allowed_token_ids.as_deref().into(), NULL);
    let words = body["bad_words"].as_array().cloned().unwrap_or_default();
    some("bad_words", Value::Array(words).into(), never());
    some("skip_reading_prefix_cache", params.skip_reading_prefix_cache.into(), never());
    out
}
