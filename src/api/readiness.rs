//! Watches the server: when it comes up, finds out what it can do and makes an engine for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::rollout::Engine;
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, UpstreamError};

/// Whether rollouts can be run here.
#[derive(Clone)]
pub enum Readiness {
    /// The server does not answer, or has not been probed yet.
    Waiting,
    /// They can.
    Ready(Engine),
    /// The server is up, but this sidecar cannot speculate for it; the reason is counted with each request.
    ForwardOnly(&'static str),
}

/// What a probe came to.
pub type BuildFuture<'a> = Pin<Box<dyn Future<Output = Result<Readiness, UpstreamError>> + Send + 'a>>;

/// Probes a server that has just come up.
pub trait EngineBuilder: Send + Sync {
    /// Finds out what the server can do.
    ///
    /// # Errors
    /// When the server goes away meanwhile; the probe is then made again.
    fn build(&self) -> BuildFuture<'_>;
}

/// How often a server that is down is asked again.
const WHILE_DOWN: Duration = Duration::from_millis(500);
/// How often a server that is up is asked whether it still is.
const WHILE_UP: Duration = Duration::from_secs(5);

/// Keeps `state` up to date until nobody looks at it.
pub(super) async fn watch(
    upstream: Upstream,
    builder: Arc<dyn EngineBuilder>,
    metrics: Metrics,
    state: watch::Sender<Readiness>,
) {
    loop {
        upstream.sweep();
        let healthy = upstream.is_healthy().await;
        let waiting = matches!(*state.borrow(), Readiness::Waiting);
        if !healthy && !waiting {
            tracing::warn!(upstream = upstream.url(), "the server does not answer its health check");
            state.send_replace(Readiness::Waiting);
        }
        if healthy && waiting {
            match builder.build().await {
                Ok(readiness) => {
                    state.send_replace(readiness);
                }
                Err(error) => tracing::warn!(%error, "the server could not be probed"),
            }
        }
        let openings = &metrics.requests.breaker_openings;
        openings.inc_by(upstream.breaker_openings().saturating_sub(openings.get()));
        let up = !matches!(*state.borrow(), Readiness::Waiting);
        metrics.requests.upstream_ready.set(i64::from(up));
        let pause = if up { WHILE_UP } else { WHILE_DOWN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.closed() => return,
        }
    }
}
