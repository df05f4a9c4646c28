//! What trainers do to a server between and during rollouts: pauses, weight updates, aborts. Seen here, acted upon, and
//! sent on as it is.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use serde_json::Value;

use super::body::{Body, full};
use super::forward::forward;
use crate::rollout::{Control, PauseMode};
use crate::telemetry::PanicMetrics;
use crate::upstream::Upstream;

/// What a control request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Generation stops, with this to become of what runs; `GET` of the path tells, by the field, whether it still
    /// stands.
    Pause(PauseMode, &'static str, &'static str),
    /// Generation goes on.
    Resume,
    /// Requests end with what they have.
    Abort,
    /// The weights, or what is cached of them, may be others afterwards.
    Weights,
    /// The same, and the body may name the policy version that they have then.
    Version,
}

impl Action {
    /// What a request does, and the route under which it is counted; nothing for one that controls nothing.
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<(Self, &'static str)> {
        if *method != Method::POST && *method != Method::DELETE {
            return None;
        }
        let query = uri.query().unwrap_or_default();
        Some(match uri.path() {
            "/pause" => (Self::Pause(mode(query), "/is_paused", "is_paused"), "pause"),
            "/sleep" => (Self::Pause(mode(query), "/is_sleeping", "is_sleeping"), "sleep"),
            "/resume" => (Self::Resume, "resume"),
            "/wake_up" => (Self::Resume, "wake_up"),
            "/abort_requests" => (Self::Abort, "abort_requests"),
            "/update_weight_version" => (Self::Version, "update_weight_version"),
            "/finish_weight_update" => (Self::Version, "finish_weight_update"),
            "/start_weight_update" => (Self::Weights, "start_weight_update"),
            "/weight_checker" => (Self::Weights, "weight_checker"),
            "/collective_rpc" => (Self::Weights, "collective_rpc"),
            "/reset_prefix_cache" => (Self::Weights, "reset_prefix_cache"),
            "/release_kv_cache_memory" => (Self::Weights, "release_kv_cache_memory"),
            "/v1/load_lora_adapter" => (Self::Weights, "load_lora_adapter"),
            "/v1/unload_lora_adapter" => (Self::Weights, "unload_lora_adapter"),
            // Trainers add routes of their own to the server, most of them named like vLLM's.
            path if path.contains("update_weights") => (Self::Weights, "update_weights"),
            path if path.contains("reload_weights") => (Self::Weights, "reload_weights"),
            path if path == "/adapters" || path.starts_with("/adapters/") => (Self::Weights, "adapters"),
            _ => return None,
        })
    }

    /// Whether the body tells something that must be known before it is sent on.
    pub(super) fn reads_body(self) -> bool {
        matches!(self, Self::Abort | Self::Version)
    }
}

/// The mode that the query of a pause names; the server refuses one that does not exist.
fn mode(query: &str) -> PauseMode {
    match query.split('&').find_map(|pair| pair.strip_prefix("mode=")) {
        Some("wait") => PauseMode::Wait,
        Some("keep") => PauseMode::Keep,
        _ => PauseMode::Abort,
    }
}

/// Does what the request asks to the rollouts here and sends it on. `known` is its body where it was read.
pub(super) async fn pass(
    upstream: &Upstream,
    control: &Control,
    panics: &PanicMetrics,
    action: Action,
    request: Request<Body>,
    known: &Bytes,
) -> Response<Body> {
    let fields = serde_json::from_slice::<Value>(known).unwrap_or_default();
    match action {
        Action::Pause(mode, path, field) => {
            // What the server refuses must have ended nothing.
            let first = if mode == PauseMode::Abort { None } else { Some(control.pause(mode).await) };
            let response = forward(upstream, request).await;
            if response.status().is_success() {
                let pause = match first {
                    Some(pause) => pause,
                    None => control.pause(mode).await,
                };
                pause.keep();
                let (upstream, control) = (upstream.clone(), control.clone());
                panics.tend(move || watch_for_resume(upstream.clone(), control.clone(), path, field));
            }
            response
        }
        Action::Resume => {
            // Woken part by part, the server sleeps until the last.
            let in_part = request.uri().query().is_some_and(|query| query.contains("tags="));
            let response = forward(upstream, request).await;
            if response.status().is_success() && !(in_part && stands(upstream, "/is_sleeping", "is_sleeping").await) {
                control.resume();
            }
            response
        }
        Action::Abort => {
            let response = forward(upstream, request).await;
            if !response.status().is_success() {
                return response;
            }
            let named = named(&fields["request_ids"]);
            let count = control.abort(named.as_deref());
            if named.is_none() { add_to_count(response, count).await } else { response }
        }
        Action::Weights | Action::Version => {
            let hold = control.hold().await;
            let response = forward(upstream, request).await;
            let version = fields["new_version"].as_str().or(fields["weight_version"].as_str());
            if let Some(version) = version.filter(|_| response.status().is_success() && action == Action::Version) {
                tracing::info!(version, "the policy has a new version");
                control.set_version(version);
            }
            drop(hold);
            response
        }
    }
}

/// The requests that an abort names, as vLLM reads it: none is everybody, a text is a list of one.
fn named(request_ids: &Value) -> Option<Vec<String>> {
    match request_ids {
        Value::String(id) if !id.is_empty() => Some(vec![id.clone()]),
        Value::Array(ids) if !ids.is_empty() => Some(ids.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    }
}

/// The server counts only what ran there: the rollouts that were aborted here are added.
async fn add_to_count(response: Response<Body>, count: usize) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Response::from_parts(head, full(Bytes::new()));
    };
    let parsed = serde_json::from_slice::<serde_json::Map<String, Value>>(&body);
    let body = match parsed {
        Ok(mut reply) => {
            if let Some(aborted) = reply.get("aborted").and_then(Value::as_u64) {
                reply.insert("aborted".to_owned(), (aborted + count as u64).into());
            }
            serde_json::to_vec(&reply).map_or(body, Bytes::from)
        }
        Err(_) => body,
    };
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, full(body))
}

/// Notices that generation has resumed by a request that did not come this way, or because the server was restarted.
async fn watch_for_resume(upstream: Upstream, control: Control, path: &'static str, field: &'static str) {
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tokio::select! {
            () = control.resumed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if !stands(&upstream, path, field).await && control.is_paused() {
            tracing::warn!("generation has resumed without a word to this sidecar");
            control.resume();
            return;
        }
    }
}

/// Whether the server says that a pause still stands.
async fn stands(upstream: &Upstream, path: &'static str, field: &str) -> bool {
    match upstream.get(path).await {
        Ok(body) => serde_json::from_slice::<Value>(&body).is_ok_and(|reply| reply[field] == true),
        // While it does not answer, nothing could go on anyway.
        Err(error) => error.is_transient(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(method: Method, uri: &'static str) -> Option<Action> {
        Action::of(&method, &Uri::from_static(uri)).map(|(action, _)| action)
    }

    #[test]
    fn control_requests_are_known_by_their_path() {
        let pause = |mode| Some(Action::Pause(mode, "/is_paused", "is_paused"));
        assert_eq!(action(Method::POST, "/pause"), pause(PauseMode::Abort));
        assert_eq!(action(Method::POST, "/pause?clear_cache=false&mode=keep"), pause(PauseMode::Keep));
        assert_eq!(action(Method::POST, "/pause?mode=wait"), pause(PauseMode::Wait));
        assert_eq!(action(Method::POST, "/resume"), Some(Action::Resume));
        assert_eq!(action(Method::POST, "/update_weights"), Some(Action::Weights));
        assert_eq!(action(Method::POST, "/trainer/update_weights_from_disk"), Some(Action::Weights));
        assert_eq!(action(Method::DELETE, "/adapters/a"), Some(Action::Weights));
    }

    #[test]
    fn what_only_asks_controls_nothing() {
        assert_eq!(action(Method::GET, "/is_paused"), None);
        assert_eq!(action(Method::GET, "/weight_info"), None);
        assert_eq!(action(Method::POST, "/tokenize"), None);
    }
}
