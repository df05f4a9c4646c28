//! Collects what rollouts measure, watches the server's own gauges, and hands out what is known.
//!
//! One task owns the costs. Rollouts send it what they measured and read its latest state without waiting for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::allowance::{Allowance, JointAllowance};
use super::choice::is_crowd;
use super::costs::Costs;
use super::forecast::Company;
use super::groups::Groups;
use super::measurement::Measurement;
use crate::telemetry::PanicMetrics;
use crate::upstream::Upstream;

/// How often the server's gauges are read while rollouts run.
const POLL: Duration = Duration::from_secs(2);
/// Measurements that may wait; more are dropped, for each is one of many.
const QUEUE: usize = 1024;
/// So many measurements that had to be left out, and four for each rollout, say that it is always so.
const ALWAYS: usize = 50;
const MICRO: f64 = 1e6;

/// What rollouts know of each other and of the server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitor {
    measurements: mpsc::Sender<Measurement>,
    costs: watch::Receiver<Arc<Costs>>,
    load: Arc<Load>,
    /// Rollouts of the same prompt.
    pub groups: Arc<Groups>,
}

/// Who is under way, counted as it happens.
#[derive(Debug, Default)]
pub struct Load {
    rollouts: AtomicUsize,
    speculating: AtomicUsize,
    drafting: AtomicUsize,
    undecided: AtomicUsize,
    fallen: AtomicUsize,
    /// Rollouts that wait for their first token: the server reads their prompts.
    starting: AtomicUsize,
    /// Rollouts whose first token has come, all told.
    started: AtomicUsize,
    /// Measurements left out since the last one during which no prompt was read.
    left_out: AtomicUsize,
    at_server: AtomicUsize,
    /// Microseconds of the server's time that verifications took, all told.
    verification_work: AtomicU64,
    /// Tokens that may be lost to finding out.
    pub allowance: Allowance,
    /// The same by a crowd that does it together.
    pub joint_allowance: JointAllowance,
}

/// One more in a count, until it is dropped.
#[derive(Debug)]
pub struct Present {
    load: Arc<Load>,
    count: fn(&Load) -> &AtomicUsize,
}

impl Present {
    fn new(load: &Arc<Load>, count: fn(&Load) -> &AtomicUsize) -> Self {
        count(load).fetch_add(1, Ordering::Relaxed);
        Self { load: Arc::clone(load), count }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        (self.count)(&self.load).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// Rollouts under way.
    #[must_use]
    pub fn rollouts(&self) -> f64 {
        self.rollouts.load(Ordering::Relaxed) as f64
    }

    /// Those of them that speculate.
    #[must_use]
    pub fn speculating(&self) -> f64 {
        self.speculating.load(Ordering::Relaxed) as f64
    }

    /// Those of them that do not: their tokens make up the server's steps where verifications are taken off.
    #[must_use]
    pub fn decoding(&self) -> f64 {
        (self.rollouts() - self.speculating()).max(0.0)
    }

    /// Those that have not decided yet what to begin with.
    #[must_use]
    pub fn undecided(&self) -> f64 {
        self.undecided.load(Ordering::Relaxed) as f64
    }

    /// Of those that go by old rollouts, or did, the share that decodes by now; absent where hardly any rollout does or did, and
    /// where most of them have left.
    #[must_use]
    pub fn beside(&self) -> Option<f64> {
        let (speculating, fallen) = (self.speculating(), self.fallen.load(Ordering::Relaxed) as f64);
        let together = speculating + fallen;
        let is_together = is_crowd(self.rollouts()) && together >= 0.75 * self.rollouts() && speculating >= fallen;
        is_together.then_some(fallen / together)
    }

    /// Those that speculate, or wait for drafts by which to begin to.
    #[must_use]
    pub fn drawing_on_drafters(&self) -> f64 {
        self.speculating().max(self.drafting.load(Ordering::Relaxed) as f64)
    }

    /// Rollouts whose first token has come since the start of the sidecar.
    #[must_use]
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// Notes that a rollout's first token has come.
    pub fn note_start(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what began after `started` rollouts had their first token was typical. While the server reads prompts its
    /// steps are longer than they will be, and what is measured then is left out, unless it is always so.
    pub fn was_typical(&self, started: usize) -> bool {
        let reads_prompts = self.starting.load(Ordering::Relaxed) > 0 || self.started() != started;
        if !reads_prompts {
            self.left_out.store(0, Ordering::Relaxed);
            return true;
        }
        let patience = ALWAYS + 4 * self.rollouts.load(Ordering::Relaxed);
        self.left_out.fetch_add(1, Ordering::Relaxed) >= patience
    }

    /// Seconds of the server's time that verifications took since the start.
    #[must_use]
    pub fn verification_work(&self) -> f64 {
        self.verification_work.load(Ordering::Relaxed) as f64 / MICRO
    }

    /// Notes committed tokens, by which trials are paid for.
    pub fn earn(&self, tokens: usize, crowded: bool) {
        self.allowance.earn(tokens, crowded);
        if crowded {
            self.joint_allowance.earn(tokens);
        }
    }

    /// Notes a verification.
    pub fn worked(&self, seconds: f64) {
        self.verification_work.fetch_add((seconds * MICRO) as u64, Ordering::Relaxed);
    }
}

impl Monitor {
    /// Starts the task that collects, which ends with the last clone of the monitor. The gauges of `server` are watched, if
    /// anything depends on them. A task that panics is begun again, the collecting one with nothing known.
    #[must_use]
    pub fn start(server: Option<Upstream>, panics: &PanicMetrics) -> Self {
        let (measurements, received) = mpsc::channel(QUEUE);
        let (published, costs) = watch::channel(Arc::new(Costs::default()));
        let load = Arc::<Load>::default();
        let received = Arc::new(Mutex::new(received));
        panics.tend(move || collect(Arc::clone(&received), published.clone()));
        if let Some(server) = server {
            let (load, measurements) = (Arc::clone(&load), measurements.downgrade());
            panics.tend(move || watch_server(server.clone(), Arc::clone(&load), measurements.clone()));
        }
        Self { measurements, costs, load, groups: Arc::default() }
    }

    /// Who is under way.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Who is at the server.
    #[must_use]
    pub fn company(&self) -> Company {
        let speculating = self.load.speculating().max(1.0);
        let decoding = (self.load.rollouts() - speculating).max(0.0) + self.costs.borrow().others;
        Company { speculating, decoding }
    }

    /// Whether the rollouts under way, here and elsewhere, are a crowd.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        is_crowd(self.load.rollouts() + self.costs.borrow().others)
    }

    /// Counts a rollout until the result is dropped.
    #[must_use]
    pub fn rollout(&self) -> Present {
        Present::new(&self.load, |load| &load.rollouts)
    }

    /// Counts a rollout that speculates.
    #[must_use]
    pub fn speculating(&self) -> Present {
        Present::new(&self.load, |load| &load.speculating)
    }

    /// Counts a rollout that has not decided yet what to begin with.
    #[must_use]
    pub fn undecided(&self) -> Present {
        Present::new(&self.load, |load| &load.undecided)
    }

    /// Counts a rollout that went by an old one and decodes now.
    #[must_use]
    pub fn fallen(&self) -> Present {
        Present::new(&self.load, |load| &load.fallen)
    }

    /// Counts a rollout that waits for a proposal.
    #[must_use]
    pub fn drafting(&self) -> Present {
        Present::new(&self.load, |load| &load.drafting)
    }

    /// Counts a rollout that waits for its first token.
    #[must_use]
    pub fn starting(&self) -> Present {
        Present::new(&self.load, |load| &load.starting)
    }

    /// Counts a request at the server.
    #[must_use]
    pub fn at_server(&self) -> Present {
        Present::new(&self.load, |load| &load.at_server)
    }

    /// What is known now.
    #[must_use]
    pub fn costs(&self) -> Arc<Costs> {
        Arc::clone(&self.costs.borrow())
    }

    /// Reports a measurement.
    pub fn report(&self, measurement: Measurement) {
        // One that finds no room is one of many.
        let _ = self.measurements.try_send(measurement);
    }
}

async fn collect(received: Arc<Mutex<mpsc::Receiver<Measurement>>>, published: watch::Sender<Arc<Costs>>) {
    let mut received = received.lock().await;
    let mut costs = Costs::default();
    let mut batch = Vec::new();
    while received.recv_many(&mut batch, 64).await > 0 {
        batch.drain(..).for_each(|measurement| costs.observe(measurement));
        published.send_replace(Arc::new(costs.clone()));
    }
}

/// Reads the server's gauges while rollouts run, until nobody collects any more. A server that does not tell is taken to
/// serve nobody else.
async fn watch_server(server: Upstream, load: Arc<Load>, measurements: mpsc::WeakSender<Measurement>) {
    let mut poll = tokio::time::interval(POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        poll.tick().await;
        if measurements.strong_count() == 0 {
            return;
        }
        if load.rollouts() == 0.0 {
            continue;
        }
        let before = load.at_server.load(Ordering::Relaxed);
        let Ok(gauges) = server.gauges().await else { continue };
        let own = before.max(load.at_server.load(Ordering::Relaxed)) as f64;
        let beyond = gauges.requests - own;
        // Requests come and go between the two counts.
        let others = if beyond > 1.0 + 0.25 * own { beyond } else { 0.0 };
        let Some(measurements) = measurements.upgrade() else { return };
        // A full queue means that the next reading will do.
        let _ = measurements.try_send(Measurement::Server { others, block_size: gauges.block_size });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test(start_paused = true)]
    async fn after_a_panic_it_collects_again() {
        let metrics = Metrics::register().unwrap();
        let monitor = Monitor::start(None, &metrics.panics);
        let decoded = |interval| Measurement::Decoded { load: 1.0, interval, tokens: 100.0 };
        let mut costs = monitor.costs.clone();
        monitor.report(decoded(0.01));
        costs.changed().await.unwrap();
        monitor.report(Measurement::Panic);
        while !metrics.encode().contains("sidedraft_panics_total{place=\"background\"} 1\n") {
            tokio::task::yield_now().await;
        }
        monitor.report(decoded(0.03));
        costs.changed().await.unwrap();
        // The 0.01 is forgotten.
        let mut fresh = Costs::default();
        fresh.observe(decoded(0.03));
        assert_eq!(format!("{:?}", monitor.costs()), format!("{fresh:?}"));
    }

    #[tokio::test]
    async fn those_who_went_by_old_rollouts_and_decode_are_counted_until_most_do() {
        let monitor = Monitor::start(None, &Metrics::register().unwrap().panics);
        let beside = || monitor.load().beside();
        let _rollouts = [0; 8].map(|_| monitor.rollout());
        let five = [0; 5].map(|_| monitor.speculating());
        assert_eq!(beside(), None, "three of eight decode and always did");
        let fallen = monitor.fallen();
        assert_eq!(beside(), Some(1.0 / 6.0));
        let more = [0; 4].map(|_| monitor.fallen());
        assert_eq!(beside(), Some(0.5));
        let last = monitor.fallen();
        assert_eq!(beside(), None);
        drop((five, fallen, more, last));
    }

    #[tokio::test]
    async fn who_speculates_is_not_among_those_that_decode() {
        let monitor = Monitor::start(None, &Metrics::register().unwrap().panics);
        let _rollouts = [monitor.rollout(), monitor.rollout(), monitor.rollout()];
        let speculating = monitor.speculating();
        assert_eq!((monitor.load().rollouts(), monitor.load().decoding()), (3.0, 2.0));
        drop(speculating);
        assert_eq!(monitor.load().decoding(), 3.0);
    }
}
