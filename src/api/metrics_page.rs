//! `GET /metrics`: the server's metrics and the sidecar's on one page.

use http::{HeaderValue, Response, header};

use super::body::{Body, full};
use crate::telemetry::{Metrics, merge};
use crate::upstream::Upstream;

/// The merged page. Without the server, the sidecar's own metrics still show, `sidedraft_upstream_ready` among them.
pub(super) async fn metrics_page(upstream: &Upstream, metrics: &Metrics) -> Response<Body> {
    let theirs = match upstream.get("/metrics").await {
        Ok(page) => String::from_utf8_lossy(&page).into_owned(),
        Err(error) => {
            tracing::debug!(%error, "no metrics from the server");
            String::new()
        }
    };
    let mut response = Response::new(full(merge(&theirs, &metrics.encode())));
    let plain_text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain_text);
    response
}
