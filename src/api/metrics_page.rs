//! `GET /metrics`: the server's metrics and the sidecar's on one page.

use http::Response;

use super::body::Body;
use super::own::figures;
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
    figures(merge(&theirs, &metrics.encode()))
}
