//! Which requests are in the server, and which their clients gave up: both can be awaited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Counts of running and aborted requests.
pub struct Activity {
    running: watch::Sender<usize>,
    aborted: watch::Sender<usize>,
    succeeded: AtomicUsize,
    /// How often the server was killed: a request that dies with it was not aborted by its client.
    lives: AtomicUsize,
}

impl Activity {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self {
            running: watch::Sender::new(0),
            aborted: watch::Sender::new(0),
            succeeded: AtomicUsize::new(0),
            lives: AtomicUsize::new(0),
        }
    }

    /// A request begins; it ends with the guard.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running { activity: Arc::clone(self), life: self.lives.load(Ordering::SeqCst), finished: false }
    }

    /// Requests in the server now.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Requests whose client disconnected before the reply was complete.
    #[must_use]
    pub fn aborted(&self) -> usize {
        *self.aborted.borrow()
    }

    /// Requests answered in full.
    #[must_use]
    pub fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::SeqCst)
    }

    /// Returns once as many requests as `holds` wants are running.
    pub async fn wait_for_running(&self, holds: impl FnMut(&usize) -> bool) {
        self.running.subscribe().wait_for(holds).await.unwrap();
    }

    /// Returns once `count` requests have been aborted since the start.
    pub async fn wait_for_aborts(&self, count: usize) {
        self.aborted.subscribe().wait_for(|&aborted| aborted >= count).await.unwrap();
    }

    /// The server dies: what still runs is nobody's abort.
    pub fn die(&self) {
        self.lives.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request in the server. Dropped before [`Running::finish`], it counts as aborted: hyper drops a handler or a body
/// when the client has gone.
pub struct Running {
    activity: Arc<Activity>,
    life: usize,
    finished: bool,
}

impl Running {
    /// The reply is complete, or the server itself gave up.
    pub fn finish(mut self) {
        self.activity.succeeded.fetch_add(1, Ordering::SeqCst);
        self.finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished && self.life == self.activity.lives.load(Ordering::SeqCst) {
            self.activity.aborted.send_modify(|aborted| *aborted += 1);
        }
        self.activity.running.send_modify(|running| *running -= 1);
    }
}
