//! `GET /health`: whether a request sent now would be served.

use http::{Response, StatusCode};

use super::body::{Body, full};
use super::error::error_response;
use crate::upstream::Upstream;

/// 200 with an empty body, as the server's own, when the server is healthy; otherwise 503 and why.
pub(super) async fn health(upstream: &Upstream) -> Response<Body> {
    match upstream.check_health().await {
        Ok(()) => Response::new(full("")),
        Err(error) => error_response(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", &error.to_string()),
    }
}
