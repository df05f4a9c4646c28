//! The routes that do not generate: what the server is, its models, its tokenizer, and its metrics.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::activity::Activity;
use super::engine::Engine;
use super::error::ApiError;
use super::ordered::{Json, NULL, obj};
use super::reply::{self, Body};
use super::{chat_template, validate, wire};

/// `GET /version`.
#[must_use]
pub fn version(engine: &Engine) -> Value {
    let version = engine.config.version.to_string();
    if engine.config.is_rust_frontend() {
        return json!({"version": version, "rust_frontend_version": version});
    }
    json!({"version": version})
}

/// `GET /v1/models`: the model, and then its adapters. A model that is named by its path lies there.
#[must_use]
pub fn models(engine: &Engine) -> Json {
    let name = engine.config.model_name.as_str();
    let root = if name.starts_with('/') { name.to_owned() } else { format!("/models/{name}") };
    let base = card(name, root, None, Some(engine.config.max_model_len));
    let adapters = engine.adapters();
    let cards = adapters.iter().map(|adapter| card(&adapter.name, adapter.path.clone(), Some(name), None));
    let cards: Json = std::iter::once(base).chain(cards).collect();
    obj! {"object": "list", "data": cards}
}

fn card(id: &str, root: String, parent: Option<&str>, max_model_len: Option<usize>) -> Json {
    let permission = obj! {"id": format!("modelperm-{}", wire::request_id(None)), "object": "model_permission",
    "created": wire::now(), "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
    "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false, "organization": "*",
    "group": NULL, "is_blocking": false};
    obj! {"id": id, "object": "model", "created": wire::now(), "owned_by": "vllm", "root": root, "parent": parent,
    "max_model_len": max_model_len, "permission": vec![permission]}
}

/// `GET /metrics`, a few of vLLM's families. Like vLLM, a server with a step loop counts sequences.
#[must_use]
pub fn metrics(engine: &Engine, activity: &Activity) -> Response<Body> {
    let model = &engine.config.model_name;
    let labels = format!("engine=\"0\",model_name=\"{model}\"");
    let (done, aborted) = (activity.succeeded(), activity.aborted());
    let queued = engine.scheduler.queued();
    let by_request = (activity.running().saturating_sub(queued), queued);
    let by_sequence = engine.pace.as_ref().map(|pace| pace.stepper.load());
    let (running, waiting) = by_sequence.map_or(by_request, |load| (load.running, load.waiting));
    let (block, caching) = (engine.config.block_size, engine.config.prefix_caching);
    let text = format!(
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
         # TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{{{labels}}} {running}.0\n\
         # HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
         # TYPE vllm:num_requests_waiting gauge\n\
         vllm:num_requests_waiting{{{labels}}} {waiting}.0\n\
         # HELP vllm:request_success_total Count of successfully processed requests.\n\
         # TYPE vllm:request_success_total counter\n\
         vllm:request_success_total{{{labels},finished_reason=\"stop\"}} 0.0\n\
         vllm:request_success_total{{{labels},finished_reason=\"length\"}} {done}.0\n\
         vllm:request_success_total{{{labels},finished_reason=\"abort\"}} {aborted}.0\n\
         # HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n\
         # TYPE vllm:cache_config_info gauge\n\
         vllm:cache_config_info{{_block_size_resolved=\"True\",block_size=\"{block}\",cache_dtype=\"auto\",enable_prefix_caching=\"{caching}\",\
         engine=\"0\",num_gpu_blocks=\"1024\"}} 1.0\n"
    );
    reply::text(StatusCode::OK, text, "text/plain; version=1.0.0; charset=utf-8")
}

/// `POST /tokenize`, of a prompt or of messages.
///
/// # Errors
/// 400 without either, 404 for another model.
pub fn tokenize(engine: &Engine, body: &Value) -> Result<Json, ApiError> {
    validate::model(engine, body["model"].as_str())?;
    let text = match &body["prompt"] {
        Value::String(prompt) => prompt.clone(),
        _ if body["messages"].is_array() => chat_template::render(body)?.text,
        _ => return Err(validate::wrong_type("prompt")),
    };
    let tokens = engine.codec.encode(&text);
    let pieces = || tokens.iter().map(|&id| Json::from(engine.codec.piece(id))).collect::<Json>();
    let pieces = (body["return_token_strs"] == true).then(pieces);
    let max_model_len = engine.config.max_model_len;
    Ok(obj! {"count": tokens.len(), "max_model_len": max_model_len, "tokens": &tokens[..], "token_strs": pieces})
}

/// `POST /detokenize`.
///
/// # Errors
/// 400 without ids, 404 for another model.
pub fn detokenize(engine: &Engine, body: &Value) -> Result<Value, ApiError> {
    validate::model(engine, body["model"].as_str())?;
    let ids: Option<Vec<u32>> = serde_json::from_value(body["tokens"].clone()).ok();
    let ids = ids.ok_or_else(|| validate::wrong_type("tokens"))?;
    Ok(json!({"prompt": engine.codec.decode(&ids, false)}))
}
