//! Clients: each sends a request, waits for the whole reply, and sends the next over the same connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::reply::Reply;
use super::traffic::{Kind, STREAMED_TOKENS, event};

/// How long a reply may keep a client waiting before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    /// Requests sent, and answered to the end.
    pub sent: u64,
    pub answered: u64,
    /// Replies that ended, and tokens that came, while they were counted.
    pub counted: u64,
    pub tokens: u64,
    /// How long they were counted.
    pub window: Duration,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.counted += other.counted;
        self.tokens += other.tokens;
        self.window = self.window.max(other.window);
    }
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    tokens: AtomicU64,
    stop: AtomicBool,
}

/// Keeps `connections` connections to `to` busy, and counts for `window` once they have run for a fifth of it.
pub(super) async fn busy(kind: Kind, to: SocketAddr, connections: usize, window: Duration) -> anyhow::Result<Tally> {
    let counters = Arc::new(Counters::default());
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(Client::connect(kind, to).await?);
    }
    let mut running = JoinSet::new();
    for mut client in clients {
        let counters = Arc::clone(&counters);
        running.spawn(async move {
            let mut sent = 0;
            while !counters.stop.load(Relaxed) {
                sent += 1;
                client.exchange(|tokens| _ = counters.tokens.fetch_add(tokens, Relaxed)).await?;
                counters.answered.fetch_add(1, Relaxed);
            }
            anyhow::Ok(sent)
        });
    }
    let read = || (counters.answered.load(Relaxed), counters.tokens.load(Relaxed));
    tokio::time::sleep(window / 5).await;
    let (before, start) = (read(), Instant::now());
    tokio::time::sleep(window).await;
    let (after, window) = (read(), start.elapsed());
    counters.stop.store(true, Relaxed);
    let mut sent = 0;
    while let Some(client) = running.join_next().await {
        sent += client.context("a client was lost")??;
    }
    Ok(Tally { sent, answered: read().0, counted: after.0 - before.0, tokens: after.1 - before.1, window })
}

/// Times `requests` requests to each of `targets`, one at a time. Every way has its turn of a few requests, in an order
/// that changes, so that whatever else happens on the machine happens to all.
pub(super) async fn one_by_one(
    kind: Kind,
    targets: &[SocketAddr],
    requests: usize,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    const TURN: usize = 20;
    let mut clients = Vec::with_capacity(targets.len());
    for &to in targets {
        let mut client = Client::connect(kind, to).await?;
        client.exchange(|_| {}).await?;
        clients.push(client);
    }
    let mut times = vec![Vec::with_capacity(requests); targets.len()];
    for (turn, begun) in (0..requests).step_by(TURN).enumerate() {
        for place in 0..targets.len() {
            let target = (turn + place) % targets.len();
            let target = if turn % 2 == 0 { target } else { targets.len() - 1 - target };
            for _ in begun..requests.min(begun + TURN) {
                let start = Instant::now();
                clients[target].exchange(|_| {}).await?;
                times[target].push(start.elapsed());
            }
        }
    }
    Ok(times)
}

/// A connection that always asks the same.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    payload: usize,
    event: usize,
    buffer: Box<[u8]>,
}

impl Client {
    async fn connect(kind: Kind, to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        let event = if kind == Kind::Stream { event().len() } else { usize::MAX };
        let buffer = vec![0; 16 << 10].into_boxed_slice();
        Ok(Self { stream, request: kind.request(to), payload: kind.payload(), event, buffer })
    }

    /// Sends the request and reads the reply, which must be complete; `tokens` is told how many each read brought.
    async fn exchange(&mut self, mut tokens: impl FnMut(u64)) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await.context("a request could not be sent")?;
        let mut reply = Reply::default();
        let mut told = 0;
        loop {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut self.buffer)).await;
            let read = read.context("no reply came")?.context("a reply broke off")?;
            if read == 0 {
                bail!("a connection was closed in the middle of a reply");
            }
            let done = reply.feed(&self.buffer[..read])?;
            let come = (reply.payload / self.event).min(STREAMED_TOKENS);
            if come > told {
                tokens((come - told) as u64);
                told = come;
            }
            if done {
                ensure!(reply.payload == self.payload, "a reply of {} bytes, not {}", reply.payload, self.payload);
                return Ok(());
            }
        }
    }
}
