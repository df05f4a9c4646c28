//! Calls off what cannot succeed: where one connection after the other could not be opened, none is tried for a while.
//!
//! Only connections count. A server that answers, with whatever error, is there; and what it refuses to one request it may
//! do for another.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// So many in a row, and no connection is tried for a while.
const ROW: u32 = 8;
/// How long at first; twice as long with each try that fails.
const FIRST: Duration = Duration::from_millis(100);
/// How long at most. The health check, which asks all the while, ends it earlier.
const LONGEST: Duration = Duration::from_secs(1);

/// Counts connections that could not be opened.
#[derive(Debug)]
pub(super) struct Breaker {
    start: Instant,
    /// In a row.
    failures: AtomicU32,
    /// Milliseconds since `start` at which the next connection may be tried.
    next: AtomicU64,
    openings: AtomicU64,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, failures: AtomicU32::new(0), next: AtomicU64::new(0), openings: AtomicU64::new(0) }
    }

    /// Whether a connection may be tried. After a pause one may, and the others wait for what comes of it.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures < ROW {
            return true;
        }
        let now = self.millis(now);
        let next = self.next.load(Ordering::Relaxed);
        let after = now + pause(failures + 1);
        now >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A connection was opened, or one that is open brought a reply.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A connection could not be opened.
    pub(super) fn failed(&self, now: Instant) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures == ROW {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
        if failures >= ROW {
            self.next.fetch_max(self.millis(now) + pause(failures), Ordering::Relaxed);
        }
    }

    /// How often it has begun to hold connections back.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }
}

/// Milliseconds to wait after so many failures.
fn pause(failures: u32) -> u64 {
    let doubled = FIRST.saturating_mul(1 << (failures - ROW).min(10));
    doubled.min(LONGEST).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(now: Instant) -> Breaker {
        let breaker = Breaker::new(now);
        (0..ROW).for_each(|_| breaker.failed(now));
        breaker
    }

    #[test]
    fn a_row_of_failures_holds_connections_back_and_one_success_in_it_does_not() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        for _ in 0..3 {
            (1..ROW).for_each(|_| breaker.failed(now));
            assert!(breaker.admits(now));
            breaker.succeeded();
        }
        assert_eq!(breaker.openings(), 0);
        (0..ROW).for_each(|_| breaker.failed(now));
        assert!(!breaker.admits(now));
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn after_each_pause_one_tries_and_pauses_grow_up_to_the_longest() {
        let mut now = Instant::now();
        let breaker = broken(now);
        for millis in [100, 200, 400, 800, 1000, 1000] {
            now += Duration::from_millis(millis - 1);
            assert!(!breaker.admits(now), "before {millis} ms are over");
            now += Duration::from_millis(1);
            assert!(breaker.admits(now), "after {millis} ms");
            assert!(!breaker.admits(now), "one alone");
            breaker.failed(now);
        }
        assert_eq!(breaker.openings(), 1);
    }

    #[test]
    fn a_try_that_is_given_up_does_not_hold_the_others_back_for_ever() {
        let now = Instant::now();
        let breaker = broken(now);
        assert!(breaker.admits(now + FIRST));
        assert!(breaker.admits(now + FIRST + LONGEST));
    }

    #[test]
    fn a_success_lets_everybody_through_again() {
        let now = Instant::now();
        let breaker = broken(now);
        breaker.succeeded();
        assert!(breaker.admits(now) && breaker.admits(now));
    }
}
