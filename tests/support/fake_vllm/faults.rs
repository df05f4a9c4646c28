//! Faults a test arms: each waits for requests whose path contains a pattern, and is spent on them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A reply of this status, with this Retry-After in seconds.
    Status(StatusCode, Option<u64>),
    /// The connection closes without a reply.
    Disconnect,
    /// The reply comes, but not as it should.
    Spoil(Spoil),
    /// The connection closes after this many chunks of a stream.
    CutStream(usize),
    /// Nothing happens until the test releases the request.
    Hang(Hang),
    /// A stream stops after this many chunks until the test releases it.
    HangStream(usize, Hang),
    /// The engine stops once a sequence of the request has this many output tokens, until the test releases it.
    HoldAtToken(usize, Hang),
}

/// How a reply differs from the one that it should have been.
#[derive(Debug, Clone, Copy)]
pub enum Spoil {
    /// The first half of the body, as if it were all.
    Half,
    /// The first half of the body, and then the connection closes.
    Cut,
    /// A JSON body with something else in it; others stay as they are.
    Json(fn(&mut serde_json::Value)),
    /// Any body, written anew.
    Text(fn(&str) -> String),
}

/// The two ends of a handshake: the server says that it hangs, the test says when to go on. No clock is involved.
#[derive(Debug, Clone)]
pub struct Hang {
    reached: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Hang {
    fn new() -> Self {
        Self { reached: watch::Sender::new(0), released: watch::Sender::new(false) }
    }

    /// Returns once a request hangs here.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Returns once `count` requests have come to hang here.
    pub async fn reached_by(&self, count: usize) {
        self.reached.subscribe().wait_for(|&reached| reached >= count).await.unwrap();
    }

    /// Lets every request go on that hangs here, now or later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// The server's end: reports, then waits.
    pub async fn hold(&self) {
        self.reached.send_modify(|reached| *reached += 1);
        self.released.subscribe().wait_for(|&released| released).await.unwrap();
    }
}

struct Armed {
    pattern: String,
    left: usize,
    fault: Fault,
}

/// The armed faults, the oldest first, and the latencies in force.
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
    latency: Mutex<(Duration, Duration)>,
}

impl Faults {
    /// No fault; the latencies of the configuration.
    #[must_use]
    pub fn new(request: Duration, token: Duration) -> Self {
        Self { armed: Mutex::default(), latency: Mutex::new((request, token)) }
    }

    /// Arms `fault` for the next `times` requests whose path contains `pattern`.
    pub fn arm(&self, pattern: &str, times: usize, fault: Fault) {
        let armed = Armed { pattern: pattern.to_owned(), left: times, fault };
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
    }

    /// Arms a handshake for the next `times` requests whose path contains `pattern`.
    pub fn arm_hang(&self, pattern: &str, times: usize, make: impl FnOnce(Hang) -> Fault) -> Hang {
        let hang = Hang::new();
        self.arm(pattern, times, make(hang.clone()));
        hang
    }

    /// Spends the oldest fault that waits for `path`.
    pub fn take(&self, path: &str) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let found = armed.iter_mut().find(|armed| armed.left > 0 && path.contains(&armed.pattern))?;
        found.left -= 1;
        let fault = found.fault.clone();
        armed.retain(|armed| armed.left > 0);
        Some(fault)
    }

    /// Disarms everything.
    pub fn clear(&self) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Sets what each request and each token wait.
    pub fn set_latency(&self, request: Duration, token: Duration) {
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner) = (request, token);
    }

    /// Waits what a request waits before it is answered.
    pub async fn before_request(&self) {
        let (request, _) = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        pause(request).await;
    }

    /// Waits what a decoding step takes. Yields at least, so that other requests, and a client's departure, are seen.
    pub async fn before_token(&self) {
        let (_, token) = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        pause(token).await;
    }
}

async fn pause(duration: Duration) {
    if duration.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(duration).await;
    }
}
