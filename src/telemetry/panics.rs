//! Panics that were caught: each is a mistake in this program, and none may be a client's to find out.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::{IntCounterVec, Registry};
use tokio::task::JoinHandle;

use super::metrics::counters;

/// What a panic ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The making of a request's answer.
    Handler,
    /// The making of the events of an answer that had begun.
    Stream,
    /// A rollout.
    Rollout,
    /// A probe of the server.
    Probe,
    /// A task that works for as long as the sidecar or its engine runs.
    Background,
}

/// How long a task that panicked rests: what made it panic may stand a while, and is not to be met in a tight loop.
const REST: Duration = Duration::from_secs(1);

impl Place {
    const ALL: [Self; 5] = [Self::Handler, Self::Stream, Self::Rollout, Self::Probe, Self::Background];

    fn name(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Stream => "stream",
            Self::Rollout => "rollout",
            Self::Probe => "probe",
            Self::Background => "background",
        }
    }
}

/// Something panicked, which is counted and logged already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Panics by what they ended.
#[derive(Debug, Clone)]
pub struct PanicMetrics {
    by_place: IntCounterVec,
}

impl PanicMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let by_place = counters(
            registry,
            "sidedraft_panics_total",
            "Panics that were caught, by what they ended; each is a bug.",
            &["place"],
        )?;
        // Shown from the start, so that the first one is an increase.
        for place in Place::ALL {
            by_place.with_label_values(&[place.name()]);
        }
        Ok(Self { by_place })
    }

    /// Counts a panic that goes on unwinding.
    pub fn note(&self, place: Place) {
        self.by_place.with_label_values(&[place.name()]).inc();
        tracing::error!(place = place.name(), "a panic: please report it");
    }

    /// What `work` comes to, unless it panics.
    ///
    /// # Errors
    /// When it does.
    pub async fn catch<T>(&self, place: Place, work: impl Future<Output = T>) -> Result<T, Panicked> {
        AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
            self.by_place.with_label_values(&[place.name()]).inc();
            tracing::error!(
                place = place.name(),
                message = message_of(&*panic),
                "a panic was caught: please report it"
            );
            Panicked
        })
    }

    /// Has a task of the current runtime do `work` until it is done, and again a second after it panicked.
    pub fn tend<F>(&self, mut work: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let panics = self.clone();
        tokio::spawn(async move {
            while panics.catch(Place::Background, work()).await.is_err() {
                tokio::time::sleep(REST).await;
            }
        })
    }
}

/// What a panic said.
#[must_use]
pub fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_panics_is_counted_and_what_does_not_is_not() {
        let registry = Registry::new();
        let panics = PanicMetrics::register(&registry).unwrap();
        assert_eq!(panics.catch(Place::Handler, async { 7 }).await, Ok(7));
        assert_eq!(panics.catch(Place::Handler, async { panic!("{}", "no") }).await, Err::<(), _>(Panicked));
        let counts = Place::ALL.map(|place| panics.by_place.with_label_values(&[place.name()]).get());
        assert_eq!(counts, [1, 0, 0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_is_begun_again_and_work_that_is_done_is_not() {
        let registry = Registry::new();
        let panics = PanicMetrics::register(&registry).unwrap();
        let (begun, started) = (Arc::new(AtomicUsize::new(0)), tokio::time::Instant::now());
        let count = Arc::clone(&begun);
        let work = move || {
            let times = count.fetch_add(1, Ordering::Relaxed);
            async move { assert!(times >= 2, "planted") }
        };
        panics.tend(work).await.unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        assert_eq!(panics.by_place.with_label_values(&["background"]).get(), 2);
        assert_eq!(started.elapsed(), 2 * REST);
    }

    #[test]
    fn a_panic_says_what_it_was_told_to() {
        assert_eq!(message_of(&"a"), "a");
        assert_eq!(message_of(&"b".to_owned()), "b");
        assert_eq!(message_of(&3), "without a word");
    }
}
