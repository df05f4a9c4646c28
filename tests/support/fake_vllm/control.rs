//! The control of training: `VLLM_SERVER_DEV_MODE=1` (`vllm/entrypoints/rl/online`, `vllm/entrypoints/serve/dev`).
//!
//! A number stands for weights: `/update_weights {"update_info": {"weights": 7}}` loads those that
//! `FakeVllm::language_of(7)` knows, and so does `/collective_rpc` with `reload_weights` and a `weights_path` of 7.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::config::Version;
use super::engine::Engine;
use super::error::ApiError;
use super::reply::{self, Body};
use super::scheduler::{Pause, PauseMode};
use super::server::Received;
use super::validate;

/// What `/sleep` takes out of memory.
const MEMORY: [&str; 2] = ["weights", "kv_cache"];

/// Answers a request for control; `None` where the path is none of these routes.
///
/// # Errors
/// A 400 for a request that says the wrong thing.
pub async fn answer(engine: &Engine, request: &Received) -> Option<Result<Response<Body>, ApiError>> {
    let path = request.path.as_str();
    if engine.config.version < Version::new(0, 16) && path != "/reset_prefix_cache" {
        return None;
    }
    let body = request.json();
    let reply = match (&request.method, path) {
        (&Method::GET, "/is_paused") => Ok(json!({"is_paused": engine.scheduler.paused() != Pause::No})),
        (&Method::GET, "/is_sleeping") => Ok(json!({
            "is_sleeping": engine.asleep() || engine.scheduler.paused() != Pause::No
        })),
        (&Method::GET, "/weight_info") => Ok(json!({"weight_version": engine.version()})),
        (&Method::POST, "/pause") => pause(engine, request).await,
        (&Method::POST, "/sleep") => sleep(engine, request).await,
        (&Method::POST, "/wake_up") => Ok(wake_up(engine, request)),
        (&Method::POST, "/resume") => {
            engine.scheduler.resume();
            Ok(json!({"status": "resumed"}))
        }
        (&Method::POST, "/abort_requests") => return Some(abort(engine, &body)),
        (&Method::POST, "/collective_rpc") => return Some(collective_rpc(engine, &body)),
        (&Method::POST, "/reset_prefix_cache") => Ok(reset_prefix_cache(engine, request)),
        (&Method::POST, _) => update(engine, path, &body)?,
        _ => return None,
    };
    Some(reply.map(|reply| reply::json(StatusCode::OK, &reply)))
}

/// The steps of an update of the weights.
fn update(engine: &Engine, path: &str, body: &Value) -> Option<Result<Value, ApiError>> {
    let missing = |field: &str| Err(validate::wrong_type(field));
    Some(match path {
        "/init_weight_transfer_engine" if !body["init_info"].is_object() => missing("init_info"),
        "/init_weight_transfer_engine" => Ok(json!({"message": "Weight transfer initialized"})),
        "/start_weight_update" => Ok(json!({"message": "Weight update started"})),
        "/update_weights" if body["update_info"].is_null() => missing("update_info"),
        "/update_weights" => {
            if let Some(weights) = label(&body["update_info"]["weights"]) {
                engine.load_weights(&weights);
            }
            Ok(json!({"message": "Weights updated"}))
        }
        "/finish_weight_update" => {
            body["weight_version"].as_str().into_iter().for_each(|version| engine.set_version(version));
            Ok(json!({"message": "Weight update finished"}))
        }
        "/update_weight_version" => match body["new_version"].as_str() {
            None => missing("new_version"),
            Some(version) => {
                engine.set_version(version);
                Ok(json!({"success": true, "new_version": version}))
            }
        },
        _ => return None,
    })
}

async fn pause(engine: &Engine, request: &Received) -> Result<Value, ApiError> {
    engine.scheduler.pause(mode(request)?).await;
    // Whatever the mode: requests that are kept are computed anew when they go on.
    if query(request, "clear_cache").as_deref() != Some("false") {
        engine.reset_prefix_cache();
    }
    Ok(json!({"status": "paused"}))
}

async fn sleep(engine: &Engine, request: &Received) -> Result<Value, ApiError> {
    let level = query(request, "level").map_or(Some(1), |level| level.parse::<u8>().ok());
    let level = level.filter(|&level| level <= 2).ok_or_else(|| validate::wrong_type("level"))?;
    engine.scheduler.pause(mode(request)?).await;
    if level >= 1 {
        engine.reset_prefix_cache();
        engine.sleep(&MEMORY);
    }
    Ok(json!({"status": "sleeping", "level": level}))
}

fn wake_up(engine: &Engine, request: &Received) -> Value {
    let pairs = request.query.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let tags: Vec<String> = pairs.filter(|(key, _)| *key == "tags").map(|(_, tag)| tag.to_owned()).collect();
    let tags = (!tags.is_empty()).then_some(tags);
    let awake = engine.wake(tags.as_deref());
    if awake {
        engine.scheduler.resume();
    }
    json!({"status": if awake { "awake" } else { "sleeping" }, "tags": tags})
}

fn abort(engine: &Engine, body: &Value) -> Result<Response<Body>, ApiError> {
    if !body.is_object() {
        let detail = if body.is_null() { "Invalid JSON format" } else { "Request body must be a JSON object" };
        return Ok(reply::json(StatusCode::BAD_REQUEST, &json!({"detail": detail})));
    }
    let ids: Vec<String> = serde_json::from_value(body["request_ids"].clone()).unwrap_or_default();
    let aborted = if ids.is_empty() {
        engine.scheduler.abort_all()
    } else {
        engine.scheduler.abort(&ids);
        ids.len()
    };
    Ok(reply::json(StatusCode::OK, &json!({"status": "aborted", "aborted": aborted})))
}

fn collective_rpc(engine: &Engine, body: &Value) -> Result<Response<Body>, ApiError> {
    let Some(method) = body["method"].as_str() else {
        return Ok(reply::json(StatusCode::BAD_REQUEST, &json!({"detail": "Missing 'method' in request body"})));
    };
    if method != "reload_weights" {
        return Ok(reply::json(StatusCode::OK, &json!({"results": []})));
    }
    if let Some(weights) = label(&body["kwargs"]["weights_path"]) {
        engine.load_weights(&weights);
    }
    Ok(reply::json(StatusCode::OK, &json!({"results": [null]})))
}

/// It fails while requests hold blocks, unless it may preempt them.
fn reset_prefix_cache(engine: &Engine, request: &Received) -> Value {
    let preempts = query(request, "reset_running_requests").as_deref() == Some("true");
    let success = preempts || engine.scheduler.begun() == 0;
    if success {
        engine.reset_prefix_cache();
    }
    json!({"success": success})
}

fn mode(request: &Received) -> Result<PauseMode, ApiError> {
    match query(request, "mode").as_deref() {
        None | Some("abort") => Ok(PauseMode::Abort),
        Some("wait") => Ok(PauseMode::Wait),
        Some("keep") => Ok(PauseMode::Keep),
        Some(_) => Err(validate::wrong_type("mode")),
    }
}

fn query(request: &Received, key: &str) -> Option<String> {
    let pairs = request.query.as_deref()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
}

/// The weights a number or a text stands for.
fn label(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
