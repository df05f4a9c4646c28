//! What is counted of the history.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Registry};

use super::metrics::{SECONDS, add, counter, counters};

/// What became of rollouts that were remembered.
#[derive(Debug, Clone)]
pub struct HistoryMetrics {
    /// Rollouts that were under way when the history had to let them go.
    pub forgotten: IntCounter,
    replays: IntCounterVec,
}

impl HistoryMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            forgotten: counter(
                registry,
                "sidedraft_history_forgotten_total",
                "Rollouts under way that the history had no room for.",
            )?,
            replays: counters(
                registry,
                "sidedraft_replays_total",
                "Old rollouts proposed to new ones, by whether what they were drawn from could be used.",
                &["rows"],
            )?,
        })
    }

    /// Counts an old rollout that serves a new one, by the rows of its tokens or without.
    pub fn replayed(&self, by_rows: bool) {
        self.replays.with_label_values(&[if by_rows { "used" } else { "unused" }]).inc();
    }
}

/// What became of rollouts that sidecars share through Redis.
#[derive(Debug, Clone)]
pub struct SharedHistoryMetrics {
    /// 1 while there is a connection.
    pub connected: IntGauge,
    /// Times that rollouts began without what had been sent for.
    pub late: IntCounter,
    /// Seconds until a batch of commands was answered.
    pub batch_seconds: Histogram,
    faults: IntCounterVec,
    records: IntCounterVec,
    refused: IntCounterVec,
}

impl SharedHistoryMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let name = |name: &str| format!("sidedraft_history_redis_{name}");
        let seconds = HistogramOpts::new(name("batch_seconds"), "Time until Redis answered a batch of commands.");
        let connected = IntGauge::new(name("connected"), "1 while there is a connection to Redis.")?;
        Ok(Self {
            connected: add(registry, connected)?,
            late: counter(
                registry,
                &name("late_total"),
                "Times that rollouts began without what had been sent for, since Redis had not answered.",
            )?,
            batch_seconds: add(registry, Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?)?,
            faults: counters(registry, &name("errors_total"), "Times that Redis did not do as asked.", &["kind"])?,
            records: counters(
                registry,
                &name("records_total"),
                "Rollouts on their way to Redis and back, by what became of them.",
                &["outcome"],
            )?,
            refused: counters(
                registry,
                &name("refused_total"),
                "Records from Redis that were not used, by what was wrong with them.",
                &["reason"],
            )?,
        })
    }

    /// Counts something that Redis did not do.
    pub fn failed(&self, kind: &str) {
        self.faults.with_label_values(&[kind]).inc();
    }

    /// Counts a record by what became of it.
    pub fn record(&self, outcome: &str) {
        self.records.with_label_values(&[outcome]).inc();
    }

    /// Counts a record that is none.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}
