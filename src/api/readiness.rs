//! Watches the server: when it comes up, finds out what it can do and makes an engine for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::rollout::Engine;
use crate::telemetry::{Metrics, Place};
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
    let mut known = None;
    loop {
        upstream.sweep();
        let health = upstream.check_health().await;
        let is_known = !matches!(*state.borrow(), Readiness::Waiting);
        if let (Err(error), true) = (&health, is_known) {
            tracing::warn!(%error, "the server does not answer its health check");
            state.send_replace(Readiness::Waiting);
        }
        // A server that serves something is compared with the one that was probed: between two looks it may have been
        // exchanged for another.
        let served = async { tokio::time::timeout(WHILE_UP, upstream.served_model()).await.ok()?.ok() };
        let served = if health.is_ok() { served.await } else { None };
        let changed = is_known && served.is_some() && known.is_some() && served != known;
        if changed {
            tracing::warn!(?served, "the server serves another model than it did: probing it anew");
            metrics.requests.upstream_changes.inc();
            state.send_replace(Readiness::Waiting);
        }
        if health.is_ok() && (!is_known || changed) {
            known = served;
            match metrics.panics.catch(Place::Probe, builder.build()).await {
                Ok(Ok(readiness)) => {
                    state.send_replace(readiness);
                }
                Ok(Err(error)) => tracing::warn!(%error, "the server could not be probed"),
                // It is probed again: what the server says may be another thing then.
                Err(_) => {}
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
