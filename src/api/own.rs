//! The sidecar's own routes, and who may ask them.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::{Body, full};
use super::error::{error_response, json_response};
use super::page;
use super::readiness::Readiness;
use crate::secret::Secret;
use crate::telemetry::Metrics;

/// A route of the sidecar's own, under `/sidedraft/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Whether the process runs. Waits for nobody.
    Live,
    /// Whether the server is there and was probed, and what came of it. Asks nobody.
    Ready,
    /// A page that shows the most important of them, by itself anew. Holds no figures.
    Page,
    /// Where the page is.
    Moved,
    /// The sidecar's metrics without the server's. Asks nobody.
    Metrics,
}

impl Own {
    /// The one at `path`.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/sidedraft/" => Some(Self::Page),
            "/sidedraft" => Some(Self::Moved),
            "/sidedraft/live" => Some(Self::Live),
            "/sidedraft/ready" => Some(Self::Ready),
            "/sidedraft/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }

    /// Whether it tells what only the holder of the key may know.
    pub(super) fn needs_key(self) -> bool {
        self == Self::Metrics
    }

    pub(super) fn respond(self, readiness: &Readiness, metrics: &Metrics) -> Response<Body> {
        match self {
            Self::Live => json_response(StatusCode::OK, r#"{"live":true}"#.into()),
            Self::Ready => ready(readiness),
            Self::Page => page::page(),
            Self::Moved => moved(),
            Self::Metrics => figures(metrics.encode()),
        }
    }
}

fn ready(readiness: &Readiness) -> Response<Body> {
    let json = match readiness {
        Readiness::Waiting => {
            let message = "the upstream server does not answer or was not probed yet";
            return error_response(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError", message);
        }
        Readiness::Ready(_) => serde_json::json!({"ready": true, "speculates": true}),
        Readiness::ForwardOnly(reason) => serde_json::json!({"ready": true, "speculates": false, "reason": reason}),
    };
    json_response(StatusCode::OK, json.to_string().into())
}

/// The page asks for figures beside itself, so it must lie in a folder.
fn moved() -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("sidedraft/"));
    response
}

/// Metrics in Prometheus's text format.
pub(super) fn figures(metrics: String) -> Response<Body> {
    let mut response = Response::new(full(metrics));
    let plain_text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain_text);
    response
}

/// Whether a request with these headers brings `key`, where there is one.
pub(super) fn is_authorised(headers: &HeaderMap, key: Option<&Secret>) -> bool {
    let Some(key) = key else { return true };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    given.is_some_and(|token| key.is(token))
}
