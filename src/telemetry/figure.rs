//! Figures that are kept elsewhere and read when the page is asked for.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

/// How a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up.
    Counter,
}

/// One figure.
pub(super) struct Figure {
    kind: Kind,
    name: String,
    help: String,
    /// One that never moves, for its description.
    described: IntCounter,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Figure {
    pub(super) fn new(
        kind: Kind,
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let described = IntCounter::new(name, help)?;
        Ok(Self { kind, name: name.to_owned(), help: help.to_owned(), described, read: Box::new(read) })
    }
}

impl Collector for Figure {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let value = (self.read)();
        let collected = match self.kind {
            Kind::Counter => IntCounter::new(&self.name, &self.help).map(|counter| {
                counter.inc_by(value);
                counter.collect()
            }),
            Kind::Gauge => IntGauge::new(&self.name, &self.help).map(|gauge| {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.collect()
            }),
        };
        // The name was good when the figure was made.
        collected.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::Metrics;
    use super::*;

    #[test]
    fn the_page_shows_what_is_read_when_it_is_asked_for() {
        let (metrics, value) = (Metrics::register().unwrap(), Arc::new(AtomicU64::new(3)));
        for (kind, name) in [(Kind::Gauge, "rabbits"), (Kind::Counter, "births_total")] {
            let value = Arc::clone(&value);
            metrics.figure(kind, name, "A.", move || value.load(Ordering::Relaxed)).unwrap();
        }
        assert!(metrics.figure(Kind::Gauge, "rabbits", "A.", || 0).is_err());
        for expected in [3, 7, 7] {
            value.store(expected, Ordering::Relaxed);
            let page = metrics.encode();
            assert!(page.contains(&format!("# TYPE rabbits gauge\nrabbits {expected}\n")), "{page}");
            assert!(page.contains(&format!("# TYPE births_total counter\nbirths_total {expected}\n")), "{page}");
        }
    }
}
