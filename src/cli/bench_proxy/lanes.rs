//! The threads that upstream and clients run on, apart from the cores of the proxies.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::load::{Tally, busy, one_by_one};
use super::traffic::Kind;
use super::upstream;

/// A thread for each core. Every one of them answers as the upstream and plays some of the clients: where both are at
/// work on one core, they do not wait for each other to be scheduled.
pub(super) struct Lanes {
    /// Where the upstream answers.
    pub upstream: SocketAddr,
    lanes: Vec<UnboundedSender<Job>>,
}

enum Job {
    Busy { kind: Kind, to: SocketAddr, connections: usize, window: Duration, done: Done<Tally> },
    OneByOne { kind: Kind, targets: Vec<SocketAddr>, requests: usize, done: Done<Vec<Vec<Duration>>> },
}

type Done<T> = mpsc::Sender<anyhow::Result<T>>;

impl Lanes {
    /// Starts `count` threads, on the cores that the calling thread is confined to.
    pub(super) fn start(count: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot open the upstream's port")?;
        listener.set_nonblocking(true)?;
        let upstream = listener.local_addr()?;
        let lanes = (0..count).map(|_| {
            let listener = listener.try_clone()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (send, jobs) = unbounded_channel();
            std::thread::Builder::new()
                .name("load".to_owned())
                .spawn(move || runtime.block_on(lane(listener, jobs)))?;
            anyhow::Ok(send)
        });
        Ok(Self { upstream, lanes: lanes.collect::<Result<_, _>>()? })
    }

    /// Keeps connections to `to` busy, shared out among all threads.
    pub(super) fn busy(
        &self,
        kind: Kind,
        to: SocketAddr,
        connections: usize,
        window: Duration,
    ) -> anyhow::Result<Tally> {
        let (done, results) = mpsc::channel();
        for (lane, connections) in self.lanes.iter().zip(shares(connections, self.lanes.len())) {
            lane.send(Job::Busy { kind, to, connections, window, done: done.clone() }).map_err(|_| gone())?;
        }
        drop(done);
        let mut total = Tally::default();
        for _ in &self.lanes {
            total += results.recv().map_err(|_| gone())??;
        }
        Ok(total)
    }

    /// Times requests to each of `targets`, one at a time.
    pub(super) fn one_by_one(
        &self,
        kind: Kind,
        targets: &[SocketAddr],
        requests: usize,
    ) -> anyhow::Result<Vec<Vec<Duration>>> {
        let (done, result) = mpsc::channel();
        let job = Job::OneByOne { kind, targets: targets.to_vec(), requests, done };
        self.lanes.first().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

fn gone() -> anyhow::Error {
    anyhow!("a thread of the load is gone")
}

/// `total` in `parts` parts as equal as can be.
fn shares(total: usize, parts: usize) -> impl Iterator<Item = usize> {
    (0..parts).map(move |part| (total + part) / parts)
}

async fn lane(listener: TcpListener, mut jobs: UnboundedReceiver<Job>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let upstream = tokio::spawn(upstream::serve(listener));
    // A result that nobody waits for any more need not arrive.
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Busy { kind, to, connections, window, done } => {
                _ = done.send(busy(kind, to, connections, window).await);
            }
            Job::OneByOne { kind, targets, requests, done } => {
                _ = done.send(one_by_one(kind, &targets, requests).await);
            }
        }
    }
    upstream.abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_evenly() {
        assert_eq!(shares(64, 3).collect::<Vec<_>>(), [21, 21, 22]);
        assert_eq!(shares(1, 2).sum::<usize>(), 1);
    }
}
