//! What is counted of spans that are sent to a collector.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::metrics::{counter, counters};

/// What became of spans.
#[derive(Debug, Clone)]
pub struct SpanMetrics {
    /// Spans that the collector has taken.
    pub(super) exported: IntCounter,
    lost: IntCounterVec,
}

impl SpanMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            exported: counter(registry, "sidedraft_spans_exported_total", "Spans that the collector has taken.")?,
            lost: counters(
                registry,
                "sidedraft_spans_lost_total",
                "Spans that did not reach the collector, by why: it did not take them, or too many waited for it.",
                &["reason"],
            )?,
        })
    }

    /// Counts spans that are gone.
    pub(super) fn lost(&self, reason: &str, spans: usize) {
        self.lost.with_label_values(&[reason]).inc_by(spans as u64);
    }
}
