//! What is counted of the history.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::metrics::{counter, counters};

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
