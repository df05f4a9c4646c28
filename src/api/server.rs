//! Connections: accept until told to stop, then let what runs finish for a while.

use std::future::Future;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::limits::Limits;
use super::sidecar::Sidecar;

/// Connections above the limit, for what is asked about the sidecar itself: a probe must find it however crowded it is.
const SPARE: usize = 64;

/// Where clients come in.
pub struct Door {
    /// What listens.
    pub listener: TcpListener,
    /// What makes TLS of a connection, if clients speak it.
    pub tls: Option<TlsAcceptor>,
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// How long before the end of a drain rollouts are broken off, so that their clients can be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves `sidecar` at `door` until `shutdown` completes; then stops accepting, waits at most `drain` for running
/// requests, tells the clients of rollouts that are not over shortly before, and drops the rest. All of it is aborted on
/// the server.
pub async fn serve(sidecar: Sidecar, door: impl Into<Door>, shutdown: impl Future<Output = ()>, drain: Duration) {
    let Door { listener, tls } = door.into();
    let limits = sidecar.limits().clone();
    let http = http(&limits);
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let has_room = connections.len() < limits.connections.saturating_add(SPARE);
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: give the running requests time to free some.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        while connections.try_join_next().is_some() {}
        let is_full = connections.len() >= limits.connections;
        let (sidecar, mut http) = (if is_full { sidecar.full() } else { sidecar.clone() }, http.clone());
        http.keep_alive(!is_full);
        let open = Open::new(&sidecar);
        let (watcher, tls, patience) = (graceful.watcher(), tls.clone(), limits.header_timeout);
        connections.spawn(async move {
            let _open = open;
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(stream, &http, sidecar, watcher).await,
                Some(tls) => {
                    if let Some(stream) = greet(&tls, stream, patience).await {
                        converse(stream, &http, sidecar, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    tracing::info!("draining");
    let last_words = LAST_WORDS.min(drain / 10);
    let mut drained = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(drain - last_words, &mut drained).await.is_err() {
        tracing::warn!("requests are still running at the deadline");
        if !last_words.is_zero() {
            sidecar.stop();
            // Those that were not told are dropped below.
            let _ = tokio::time::timeout(last_words, drained).await;
        }
    }
    connections.shutdown().await;
}

/// How to speak HTTP within `limits`.
fn http(limits: &Limits) -> http1::Builder {
    /// hyper's own.
    const USUAL: usize = 8192 + 4096 * 100;
    let mut http = http1::Builder::new();
    // What is a little too long is read to its end, to be answered in the shape of other errors.
    http.writev(false).max_buf_size(limits.header_bytes.saturating_mul(2).max(USUAL));
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    http
}

/// Agrees with a client on TLS.
async fn greet(
    tls: &TlsAcceptor,
    stream: TcpStream,
    patience: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client does not speak TLS as it should");
            None
        }
        Err(_) => {
            tracing::debug!("a client was too slow to speak TLS");
            None
        }
    }
}

/// Answers a connection's requests.
async fn converse<S>(stream: S, http: &http1::Builder, sidecar: Sidecar, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = http.serve_connection(TokioIo::new(stream), sidecar);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// One more in the count of connections.
struct Open(prometheus::IntGauge);

impl Open {
    fn new(sidecar: &Sidecar) -> Self {
        let gauge = sidecar.metrics().requests.connections.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
