//! The end of a drain: rollouts that will not be over in time are told so while there is time to tell their clients.

use tokio::sync::watch;

/// Tells of the end.
#[derive(Debug)]
pub(super) struct Stop(watch::Sender<bool>);

/// Hears of it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Tells everybody, now and later.
    pub(super) fn now(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn listen(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }
}

impl Stopping {
    /// Whether the end has come.
    pub(super) fn is_now(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes at the end.
    pub(super) async fn reached(&mut self) {
        if self.0.wait_for(|now| *now).await.is_err() {
            // Nobody is left who could stop anything.
            std::future::pending::<()>().await;
        }
    }
}
