//! Time for simulations: real on an ordinary runtime, virtual where tokio's clock is paused.
//!
//! Tokio's own auto-advance does not do for a simulation with sockets. It moves the clock to the next timer whenever no
//! task is ready, also in the very poll that found a readable socket, so replies arrive late and timeouts fire that
//! nothing had caused. And its timers are rounded up to whole milliseconds, which is longer than a draft model's step. So
//! a task of the timeline's own moves the paused clock. It never sleeps, which keeps auto-advance from happening, and it
//! moves the clock only when the runtime has gone round [`ROUNDS`] times without anybody asking for a time to wait for.
//! In each round every ready task is polled and every readable socket is found, so a chain of causes may pass through as
//! many sockets and channels as there are rounds before it has to lead to a wait or an end.
//!
//! Work on other threads is not waited for: a virtual timeline is for a current-thread runtime that does everything itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep_until};

/// Rounds of the runtime without news after which nothing more can happen at this instant.
pub const ROUNDS: usize = 64;
/// How far the clock moves while nobody waits for a time that the timeline knows, so that others' timers fire.
const IDLE: Duration = Duration::from_millis(1);

/// Somebody who waits.
#[derive(Debug)]
struct Wait {
    at: Instant,
    /// After all else that happens at that instant.
    last: bool,
    wake: oneshot::Sender<()>,
}

/// A clock that several simulated machines share.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Absent in real time.
    waits: Option<mpsc::UnboundedSender<Wait>>,
    deepest: Arc<AtomicUsize>,
}

impl Timeline {
    /// A timeline on the clock of this runtime, virtual if that is paused.
    #[must_use]
    pub fn start() -> Self {
        let deepest = Arc::default();
        if !is_paused() {
            return Self { waits: None, deepest };
        }
        let (sender, waits) = mpsc::unbounded_channel();
        let clock = Clock { waits, due: BTreeMap::new(), number: 0, deepest: Arc::clone(&deepest) };
        tokio::spawn(clock.run());
        Self { waits: Some(sender), deepest }
    }

    /// Whether time is virtual.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.waits.is_some()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Returns at `at`: exactly then in virtual time, up to a millisecond late in real time.
    pub async fn until(&self, at: Instant) {
        match &self.waits {
            Some(waits) => wait(waits, at, false).await,
            None => sleep_until(at).await,
        }
    }

    /// Returns after `duration`.
    pub async fn pass(&self, duration: Duration) {
        self.until(self.now() + duration).await;
    }

    /// Returns when all that happens at this instant has happened; in real time, when others have had a chance.
    pub async fn settled(&self) {
        if let Some(waits) = &self.waits {
            wait(waits, self.now(), true).await;
        } else {
            for _ in 0..4 {
                yield_now().await;
            }
        }
    }

    /// The most rounds after which anybody still came to wait within an instant. Near [`ROUNDS`], virtual time is not to
    /// be trusted.
    #[must_use]
    pub fn deepest(&self) -> usize {
        self.deepest.load(Ordering::Relaxed)
    }
}

async fn wait(waits: &mpsc::UnboundedSender<Wait>, at: Instant, last: bool) {
    let (wake, woken) = oneshot::channel();
    if waits.send(Wait { at, last, wake }).is_ok() {
        // The clock goes only with the runtime.
        let _ = woken.await;
    }
}

/// Whether tokio's clock stands still while the real one runs.
fn is_paused() -> bool {
    let (before, real) = (Instant::now(), std::time::Instant::now());
    while real.elapsed() < Duration::from_micros(20) {
        std::hint::spin_loop();
    }
    Instant::now() == before
}

/// The task that moves the paused clock.
struct Clock {
    waits: mpsc::UnboundedReceiver<Wait>,
    /// Who is to be woken, by time, then whether last, then who came first.
    due: BTreeMap<(Instant, bool, u64), oneshot::Sender<()>>,
    number: u64,
    deepest: Arc<AtomicUsize>,
}

impl Clock {
    /// Runs until every handle of the timeline is gone.
    async fn run(mut self) {
        while self.settle().await {
            self.due.retain(|_, wake| !wake.is_closed());
            let Some((&(at, last, _), _)) = self.due.first_key_value() else {
                advance(IDLE).await;
                continue;
            };
            if at > Instant::now() {
                advance(at - Instant::now()).await;
            }
            while let Some(first) = self.due.first_entry()
                && (first.key().0, first.key().1) == (at, last)
            {
                // Who has just stopped waiting does not mind.
                let _ = first.remove().send(());
            }
        }
    }

    /// Lets everything happen that happens at this instant; false when nobody holds the timeline any more.
    async fn settle(&mut self) -> bool {
        let mut quiet = 0;
        while quiet < ROUNDS {
            yield_now().await;
            quiet += 1;
            loop {
                match self.waits.try_recv() {
                    Ok(Wait { at, last, wake }) => {
                        self.deepest.fetch_max(quiet, Ordering::Relaxed);
                        self.due.insert((at, last, self.number), wake);
                        self.number += 1;
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return false,
                }
                quiet = 0;
            }
        }
        true
    }
}
