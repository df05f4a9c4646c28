//! `sidedraft serve`.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Door, Limits, Sidecar, SidecarSettings, serve};
use crate::config::{ServeSettings, TellingSettings};
use crate::setup::Setup;
use crate::telemetry::{Metrics, Traces, init_tracing};
use crate::tls::acceptor;
use crate::upstream::Upstream;

pub(super) fn run(settings: ServeSettings) -> anyhow::Result<()> {
    let metrics = Metrics::register().context("cannot register metrics")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let TellingSettings { log, log_format, otlp_endpoint } = &settings.telling;
    let traces = otlp_endpoint.as_ref().map(|url| Traces::start(url, &metrics.spans, runtime.handle().clone()));
    let traces = traces.transpose().context("--otlp-endpoint")?;
    init_tracing(log, *log_format, traces.as_ref()).map_err(|error| anyhow!("--log: {error}"))?;
    let served = runtime.block_on(serve_until_told(settings, metrics));
    // While there is a runtime to send them.
    if let Some(traces) = traces {
        traces.finish();
    }
    served
}

async fn serve_until_told(settings: ServeSettings, metrics: Metrics) -> anyhow::Result<()> {
    settings.target.check().map_err(|error| anyhow!(error))?;
    let tls = settings.door.tls().map(|tls| acceptor(&tls)).transpose().context("--tls-cert")?;
    let upstream = Upstream::new(&settings.target.upstream_options())?;
    raise_file_limit();
    let setup = Setup::new(settings.target.clone(), settings.policy(), upstream.clone(), metrics.clone());
    setup.insist().await.context("--draft-device cuda")?;
    let listener = listen(settings.listen).with_context(|| format!("cannot listen on {}", settings.listen))?;
    let shutdown = shutdown_signal()?;
    let door = Door { listener, tls };
    announce(&door)?;
    let sidecar = Sidecar::start(SidecarSettings {
        upstream,
        builder: Arc::new(setup),
        metrics,
        limits: Limits::from(&settings.limits),
        api_key: settings.door.api_key.clone(),
    });
    serve(sidecar, door, shutdown, settings.drain_timeout).await;
    Ok(())
}

/// A rollout needs a file descriptor for its client and one or two for the server, and the usual limit of 1,024 is one that
/// a process may raise by itself.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, current = ?limit.current, "the limit of open files stays as it is");
    }
}

/// Listens with room for a whole step's rollouts to connect at once: with the usual 128, the kernel would drop the rest, and
/// they would try again a second later.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Completes on SIGTERM or SIGINT.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Says where it listens, for whoever started it with port 0.
fn announce(door: &Door) -> anyhow::Result<()> {
    let scheme = if door.tls.is_some() { "https" } else { "http" };
    let address = door.listener.local_addr().context("cannot tell the listening address")?;
    let url = format!("{scheme}://{address}");
    tracing::info!(%url, "listening");
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::json!({ "listening": url })).context("cannot write to standard output")?;
    stdout.flush().context("cannot write to standard output")
}
