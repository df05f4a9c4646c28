//! The threads of an API server: whoever comes first is served first, by the thread that is free first.

use std::time::Duration;

use tokio::time::Instant;

/// When each thread is free again.
#[derive(Debug, Clone)]
pub struct ApiThreads {
    free: Vec<Option<Instant>>,
}

impl ApiThreads {
    /// So many threads, all idle.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { free: vec![None; threads] }
    }

    /// Gives one of them work that comes `now` and takes `work`; returns when it is done. Calls come in the order of
    /// their times.
    pub fn book(&mut self, now: Instant, work: Duration) -> Instant {
        let Some(thread) = self.free.iter_mut().min() else { return now };
        let done = thread.map_or(now, |free| free.max(now)) + work;
        *thread = Some(done);
        done
    }
}
