//! `POST /v1/completions/render`: what the server would ask its engine, its own defaults filled in.

use serde_json::{Value, json};

use super::engine::Engine;
use super::error::ApiError;
use super::params::ParamFields;
use super::prompt::prompts;
use super::{validate, wire};

/// One generate request for each prompt. The sampling parameters that are listed are resolved; `top_k` is left out where
/// it is off.
///
/// # Errors
/// As for a completion.
pub fn render(engine: &Engine, body: &Value) -> Result<Value, ApiError> {
    let config = &engine.config;
    validate::check_model(config, body["model"].as_str())?;
    let asked: ParamFields = validate::parse(body)?;
    let max_tokens = asked.max_tokens.unwrap_or(16);
    let params = asked.with_defaults(&config.defaults).build(max_tokens, |text| engine.codec.encode(text))?;
    let mut sampling = json!({
        "presence_penalty": params.presence_penalty, "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": params.repetition_penalty, "temperature": params.temperature, "top_p": params.top_p,
        "min_p": params.min_p, "stop": params.stop, "stop_token_ids": params.stop_token_ids,
        "max_tokens": params.max_tokens, "output_kind": 2, "skip_clone": true, "bad_words": [],
        "skip_reading_prefix_cache": params.skip_reading_prefix_cache,
    });
    if params.top_k != 0 {
        sampling["top_k"] = json!(params.top_k);
    }
    let id = wire::request_id(body["request_id"].as_str());
    let request = |ids: Vec<u32>| {
        json!({"request_id": format!("cmpl-{id}"), "token_ids": ids, "token_offsets": null, "features": null,
            "content_parts": null, "sampling_params": sampling, "model": config.model_name, "reasoning_ended": null,
            "reasoning_parser_kwargs": null, "return_token_ids": null, "output_mode": "tokens", "stream": false,
            "stream_options": null, "cache_salt": body["cache_salt"], "priority": 0, "kv_transfer_params": null,
            "ec_transfer_params": null})
    };
    Ok(prompts(engine, &body["prompt"])?.into_iter().map(|prompt| request(prompt.ids)).collect())
}
