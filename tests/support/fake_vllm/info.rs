//! The routes that do not generate: what the server is, its tokenizer, its metrics, and the control of training.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::activity::Activity;
use super::config::Version;
use super::engine::Engine;
use super::error::ApiError;
use super::reply::{self, Body};
use super::{validate, wire};

/// `GET /version`.
#[must_use]
pub fn version(engine: &Engine) -> Value {
    let version = engine.config.version.to_string();
    if engine.config.is_rust_frontend() {
        return json!({"version": version, "rust_frontend_version": version});
    }
    json!({"version": version})
}

/// `GET /v1/models`.
#[must_use]
pub fn models(engine: &Engine) -> Value {
    let name = &engine.config.model_name;
    let permission = json!({"id": format!("modelperm-{}", wire::request_id(None)), "object": "model_permission",
        "created": wire::now(), "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
        "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false, "organization": "*",
        "group": null, "is_blocking": false});
    let card = json!({"id": name, "object": "model", "created": wire::now(), "owned_by": "vllm",
        "root": format!("/models/{name}"), "parent": null, "max_model_len": engine.config.max_model_len,
        "permission": [permission]});
    json!({"object": "list", "data": [card]})
}

/// `GET /metrics`, a few of vLLM's families.
#[must_use]
pub fn metrics(engine: &Engine, activity: &Activity) -> Response<Body> {
    let model = &engine.config.model_name;
    let labels = format!("engine=\"0\",model_name=\"{model}\"");
    let (running, done, aborted) = (activity.running(), activity.succeeded(), activity.aborted());
    let (block, caching) = (engine.config.block_size, engine.config.prefix_caching);
    let text = format!(
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
         # TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{{{labels}}} {running}.0\n\
         # HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
         # TYPE vllm:num_requests_waiting gauge\n\
         vllm:num_requests_waiting{{{labels}}} 0.0\n\
         # HELP vllm:request_success_total Count of successfully processed requests.\n\
         # TYPE vllm:request_success_total counter\n\
         vllm:request_success_total{{{labels},finished_reason=\"stop\"}} 0.0\n\
         vllm:request_success_total{{{labels},finished_reason=\"length\"}} {done}.0\n\
         vllm:request_success_total{{{labels},finished_reason=\"abort\"}} {aborted}.0\n\
         # HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n\
         # TYPE vllm:cache_config_info gauge\n\
         vllm:cache_config_info{{block_size=\"{block}\",cache_dtype=\"auto\",enable_prefix_caching=\"{caching}\",\
         engine=\"0\",num_gpu_blocks=\"1024\"}} 1.0\n"
    );
    reply::text(StatusCode::OK, text, "text/plain; version=1.0.0; charset=utf-8")
}

/// `POST /tokenize`, of a prompt or of messages.
///
/// # Errors
/// 400 without either, 404 for another model.
pub fn tokenize(engine: &Engine, body: &Value) -> Result<Value, ApiError> {
    validate::check_model(&engine.config, body["model"].as_str())?;
    let text = match (&body["prompt"], &body["messages"]) {
        (Value::String(prompt), _) => prompt.clone(),
        (_, Value::Array(_)) => render_chat(body),
        _ => return Err(validate::wrong_type("prompt")),
    };
    let tokens = engine.codec.encode(&text);
    let pieces = || tokens.iter().map(|&id| engine.codec.piece(id)).collect::<Vec<_>>();
    Ok(json!({"count": tokens.len(), "max_model_len": engine.config.max_model_len,
        "token_strs": (body["return_token_strs"] == true).then(pieces), "tokens": tokens}))
}

/// `POST /detokenize`.
///
/// # Errors
/// 400 without ids, 404 for another model.
pub fn detokenize(engine: &Engine, body: &Value) -> Result<Value, ApiError> {
    validate::check_model(&engine.config, body["model"].as_str())?;
    let ids: Option<Vec<u32>> = serde_json::from_value(body["tokens"].clone()).ok();
    let ids = ids.ok_or_else(|| validate::wrong_type("tokens"))?;
    Ok(json!({"prompt": engine.codec.decode(&ids, false)}))
}

/// The chat template: a line for each message, and a line begun for the answer.
#[must_use]
pub fn render_chat(body: &Value) -> String {
    let content = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    let role = |message: &Value| message["role"].as_str().unwrap_or_default().to_owned();
    let line = |message: &Value| format!("{} {}\n", role(message), content(message));
    let mut text: String = body["messages"].as_array().into_iter().flatten().map(line).collect();
    if body["add_generation_prompt"] != false {
        text.push_str("assistant ");
    }
    text
}

/// The routes of `VLLM_SERVER_DEV_MODE=1`, as far as a trainer that swaps weights uses them. `None` for any other path.
#[must_use]
pub fn control(engine: &Engine, path: &str, body: &Value) -> Option<Value> {
    if engine.config.version < Version::new(0, 16) && path != "/reset_prefix_cache" {
        return None;
    }
    Some(match path {
        "/pause" => json!({"status": "paused"}),
        "/resume" => json!({"status": "resumed"}),
        "/is_paused" => json!({"is_paused": false}),
        "/abort_requests" => json!({"status": "aborted", "aborted": 0}),
        "/init_weight_transfer_engine" => json!({"message": "Weight transfer initialized"}),
        "/start_weight_update" => json!({"message": "Weight update started"}),
        "/update_weights" => json!({"message": "Weights updated"}),
        "/finish_weight_update" => json!({"message": "Weight update finished"}),
        "/collective_rpc" => json!({"results": [null]}),
        "/reset_prefix_cache" => {
            engine.reset_prefix_cache();
            json!({"success": true})
        }
        "/update_weight_version" => {
            let version = body["new_version"].as_str().unwrap_or_default();
            engine.set_weights(version);
            json!({"success": true, "new_version": version})
        }
        "/weight_info" => json!({"weight_version": engine.language().weights}),
        _ => return None,
    })
}
