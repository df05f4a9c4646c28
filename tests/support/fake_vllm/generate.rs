//! `POST /inference/v1/generate`: tokens in, tokens out.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::Version;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::Faults;
use super::logprobs::{Row, floor};
use super::params::ParamFields;
use super::sequence::{Finish, Sequence};
use super::{validate, wire};

/// What a request says besides its sampling parameters.
#[derive(Debug, Clone, Deserialize)]
struct GenerateFields {
    token_ids: Vec<u32>,
    sampling_params: Value,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    cache_salt: Option<String>,
    #[serde(default)]
    return_token_ids: Option<bool>,
    #[serde(default)]
    stream: Option<bool>,
}

/// Answers a generate request.
///
/// # Errors
/// What vLLM refuses; 404 before the route existed, 403 where it is not enabled.
pub async fn generate(engine: &Arc<Engine>, faults: &Faults, body: &Value) -> Result<Value, ApiError> {
    let config = &engine.config;
    let fields: GenerateFields = validate::parse(body)?;
    let sampling: ParamFields = validate::parse(&fields.sampling_params)?;
    validate::check_model(config, fields.model.as_deref())?;
    validate::check_engine_prompt(config, &fields.token_ids)?;
    if fields.stream == Some(true) {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplementedError", "the fake does not stream here"));
    }
    if config.is_rust_frontend() && sampling.n.is_some_and(|n| n > 1) {
        return Err(ApiError::bad_request("Only n=1 is supported."));
    }
    // What a request leaves out is vLLM's own default here, never the generation config's; only max_tokens is filled.
    let room = (config.max_model_len - fields.token_ids.len()) as i64;
    let max_tokens = sampling.max_tokens.unwrap_or(room);
    let params = sampling.build(max_tokens, |text| engine.codec.encode(text))?;
    params.verify(config)?;

    let start = |_| Sequence::start(engine, fields.token_ids.clone(), params.clone(), fields.cache_salt.clone());
    let mut sequences: Vec<Sequence> = (0..params.n).map(start).collect();
    while sequences.iter().any(|sequence| sequence.finish.is_none()) {
        faults.before_token().await;
        sequences.iter_mut().filter(|sequence| sequence.finish.is_none()).for_each(Sequence::step);
    }

    let cached = sequences.last().map_or(0, |last| last.cached);
    let rows = params.prompt_logprobs.map(|count| engine.prompt_rows(&fields.token_ids, cached, count));
    let rows = rows.map(|rows| wire::finite(config, rows)).transpose()?;
    let choices: Vec<Value> = sequences.iter().enumerate().map(|(index, done)| choice(engine, index, done)).collect();
    let mut reply = json!({
        "request_id": format!("generate-tokens-{}", wire::request_id(fields.request_id.as_deref())),
        "choices": choices,
        "prompt_logprobs":
            rows.map(|rows| wire::prompt_logprobs(engine, &fields.token_ids, &rows, params.detokenize)),
        "prompt_token_ids": (fields.return_token_ids == Some(true)).then_some(&fields.token_ids),
        "mm_placeholders": null, "kv_transfer_params": null, "ec_transfer_params": null,
    });
    if !config.is_rust_frontend() {
        let output = sequences.iter().map(|sequence| sequence.output.len()).sum();
        reply["model"] = json!(config.model_name);
        reply["created"] = json!(wire::now());
        reply["usage"] = wire::usage(config, fields.token_ids.len(), output, cached, true);
        reply["prompt_token_id_logprobs"] = Value::Null;
        reply["metrics"] = Value::Null;
        reply["output_mode"] = json!("tokens");
    }
    Ok(reply)
}

fn choice(engine: &Engine, index: usize, sequence: &Sequence) -> Value {
    let config = &engine.config;
    let reason = sequence.finish.as_ref().map(Finish::reason);
    let logprobs = sequence.params.logprobs.map(|count| {
        let rows = sequence.output.iter().zip(&sequence.rows);
        // The sampled token counts as one of the top here, so fewer alternatives come than were asked for.
        let keep = usize::try_from(count).map_or(usize::MAX, |count| count.max(1));
        let tokens_only = config.version >= Version::CURRENT && !config.is_rust_frontend();
        let content = rows.map(|(&id, row)| if tokens_only { by_id(id, row, keep) } else { by_name(id, row, keep) });
        json!({"content": content.collect::<Vec<_>>()})
    });
    let mut choice =
        json!({"index": index, "finish_reason": reason, "token_ids": sequence.output, "logprobs": logprobs});
    if !config.is_rust_frontend() {
        choice["stop_reason"] = sequence.finish.as_ref().map_or(Value::Null, Finish::stop_reason);
        choice["routed_experts"] = Value::Null;
        choice["sampling_mask"] = Value::Null;
        if config.version >= Version::WEIGHT_VERSIONS {
            choice["weight_versions"] = sequence.weight_versions();
        }
    }
    choice
}

/// A position with integer ids.
fn by_id(id: u32, row: &Row, keep: usize) -> Value {
    let entry = |id: u32, logprob, rank| json!({"token_id": id, "logprob": floor(logprob), "rank": rank});
    let top: Vec<Value> = row.0.iter().take(keep).map(|top| entry(top.id, top.logprob, top.rank)).collect();
    let mut position = entry(id, row.0[0].logprob, row.0[0].rank);
    position["top_logprobs"] = json!(top);
    position
}

/// A position as chat completions have it, with `token_id:N` for a text: earlier releases and the Rust frontend.
fn by_name(id: u32, row: &Row, keep: usize) -> Value {
    let entry = |id: u32, logprob| json!({"token": format!("token_id:{id}"), "logprob": floor(logprob), "bytes": null});
    let top: Vec<Value> = row.0.iter().take(keep).map(|top| entry(top.id, top.logprob)).collect();
    let mut position = entry(id, row.0[0].logprob);
    position["top_logprobs"] = json!(top);
    position
}
