//! Errors in the shape of vLLM's own, which is OpenAI's.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::body::{Body, full};
use super::refusal::Refusal;
use crate::rollout::RolloutError;
use crate::upstream::UpstreamError;
use crate::upstream::origin::strip_hop_by_hop;

#[derive(Serialize)]
struct Envelope<'a> {
    error: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: u16,
}

/// The body of an error.
pub(super) fn error_json(status: StatusCode, kind: &str, message: &str) -> Bytes {
    let details = Details { message, r#type: kind, param: None, code: status.as_u16() };
    // A struct of strings and numbers always has a JSON form.
    serde_json::to_vec(&Envelope { error: details }).unwrap_or_default().into()
}

/// A whole error reply.
pub(super) fn error_response(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    json_response(status, error_json(status, kind, message))
}

/// The reply to a request that met a mistake in this program.
pub(super) fn internal_error(message: &str) -> Response<Body> {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, message)
}

/// The body of the event that says the same in the middle of a stream.
pub(super) fn internal_error_event(message: &str) -> Bytes {
    error_json(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, message)
}

const INTERNAL: &str = "InternalServerError";

/// A reply with a JSON body.
pub(super) fn json_response(status: StatusCode, json: Bytes) -> Response<Body> {
    let mut response = Response::new(full(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The reply to a request that the server could not be asked, or that it refused: its own reply, unchanged.
pub(super) fn upstream_error(error: &UpstreamError) -> Response<Body> {
    match error {
        UpstreamError::Status(refusal) => {
            let mut response = Response::new(full(refusal.body.clone()));
            *response.status_mut() = refusal.status;
            *response.headers_mut() = refusal.headers.clone();
            strip_hop_by_hop(response.headers_mut());
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response
        }
        UpstreamError::Intake(fault) => match Refusal::of(fault) {
            Some(refusal) => refusal.response(),
            None => error_response(StatusCode::BAD_REQUEST, "BadRequestError", &fault.to_string()),
        },
        _ => error_response(StatusCode::BAD_GATEWAY, "BadGatewayError", &error.to_string()),
    }
}

/// The reply to a request whose rollout failed before anything was sent.
pub(super) fn rollout_error(error: &RolloutError) -> Response<Body> {
    match error {
        RolloutError::Upstream(error) => upstream_error(error),
        RolloutError::Text(error) => internal_error(&error.to_string()),
    }
}

/// The body of the event that tells of a failure in the middle of a stream.
pub(super) fn rollout_error_event(error: &RolloutError) -> Bytes {
    match error {
        RolloutError::Upstream(UpstreamError::Status(refusal))
            if serde_json::from_slice::<serde_json::Value>(&refusal.body)
                .is_ok_and(|json| json.get("error").is_some()) =>
        {
            refusal.body.clone()
        }
        RolloutError::Upstream(_) => error_json(StatusCode::BAD_GATEWAY, "BadGatewayError", &error.to_string()),
        RolloutError::Text(_) => internal_error_event(&error.to_string()),
    }
}
