//! What the sidecar counts, in a registry of its own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::control::ControlMetrics;
use super::figure::{Figure, Kind};
use super::history::{HistoryMetrics, SharedHistoryMetrics};
use super::panics::PanicMetrics;
use super::spans::SpanMetrics;
use super::speculation::{DraftMetrics, SpeculationMetrics};
use super::timer::Timer;

pub(super) const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Speculated.
    Speculated,
    /// Sent on untouched, for a reason.
    Forwarded(&'static str),
    /// Ended in an error of the sidecar's or the server's during speculation.
    Failed,
    /// The client went away.
    Cancelled,
    /// Turned away, for a reason.
    Refused(&'static str),
}

impl Outcome {
    /// Outcome and reason.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Speculated => ("speculated", ""),
            Self::Forwarded(reason) => ("forwarded", reason),
            Self::Failed => ("failed", ""),
            Self::Cancelled => ("cancelled", ""),
            Self::Refused(reason) => ("refused", reason),
        }
    }
}

/// What became of a chat that began as the server's own stream before its prompt was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The rollout went on with it.
    Kept,
    /// A control request came before its first token.
    Left,
    /// It did not tell the prompt.
    Untold,
}

/// All metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests.
    pub requests: RequestMetrics,
    /// Proposals and their verification.
    pub speculation: SpeculationMetrics,
    /// Drafters.
    pub draft: DraftMetrics,
    /// A trainer's control requests.
    pub control: ControlMetrics,
    /// Rollouts that were remembered.
    pub history: HistoryMetrics,
    /// Panics.
    pub panics: PanicMetrics,
    /// Spans for a collector.
    pub spans: SpanMetrics,
}

impl Metrics {
    /// Registers every metric in a new registry.
    ///
    /// # Errors
    /// When a name is invalid or taken twice, which would be a mistake in this file.
    pub fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        Ok(Self {
            requests: RequestMetrics::register(&registry)?,
            speculation: SpeculationMetrics::register(&registry)?,
            draft: DraftMetrics::register(&registry)?,
            control: ControlMetrics::register(&registry)?,
            history: HistoryMetrics::register(&registry)?,
            panics: PanicMetrics::register(&registry)?,
            spans: SpanMetrics::register(&registry)?,
            registry,
        })
    }

    /// Registers what is counted of a history that is shared, where there is one.
    ///
    /// # Errors
    /// When that was done before.
    pub fn shared_history(&self) -> prometheus::Result<SharedHistoryMetrics> {
        SharedHistoryMetrics::register(&self.registry)
    }

    /// Adds a figure that somebody else keeps.
    ///
    /// # Errors
    /// When its name is invalid or taken.
    pub fn figure(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> prometheus::Result<()> {
        self.registry.register(Box::new(Figure::new(kind, name, help, read)?))
    }

    /// The metrics in Prometheus's text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = Vec::new();
        // Writing into memory fails only for metrics without values, which this registry does not hold.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        String::from_utf8(page).unwrap_or_default()
    }
}

pub(super) fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    add(registry, IntCounter::new(name, help)?)
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn seconds(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?)
}

/// Requests by outcome and how long they took.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    by_outcome: IntCounterVec,
    duration: HistogramVec,
    /// The one of `duration` that each request needs that passes through.
    forwarding: Histogram,
    unknown_fields: IntCounterVec,
    named_fields: Arc<Mutex<HashSet<String>>>,
    chats_opened: IntCounterVec,
    chats_rendered: IntCounterVec,
    /// Rollouts under way.
    pub rollouts_running: IntGauge,
    /// Connections of clients.
    pub connections: IntGauge,
    /// 1 while the server answers its health check and its capabilities are known.
    pub upstream_ready: IntGauge,
    /// How often the server was found to serve another model than before.
    pub upstream_changes: IntCounter,
    /// How often connections to the server were held back.
    pub breaker_openings: IntCounter,
}

impl RequestMetrics {
    /// Clients choose the names of unknown fields; so many of them get a time series of their own.
    const MOST_FIELDS: usize = 64;

    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let outcome = ["outcome", "reason"];
        let duration = seconds(
            registry,
            "sidedraft_request_duration_seconds",
            "Time from a request's arrival to the end of its reply.",
            &["outcome"],
        )?;
        Ok(Self {
            by_outcome: counters(registry, "sidedraft_requests_total", "Requests by what became of them.", &outcome)?,
            forwarding: duration.with_label_values(&[Outcome::Forwarded("").labels().0]),
            duration,
            unknown_fields: counters(
                registry,
                "sidedraft_unknown_fields_total",
                "Requests forwarded because of a field that is not known.",
                &["field"],
            )?,
            named_fields: Arc::default(),
            chats_opened: counters(
                registry,
                "sidedraft_chats_opened_total",
                "Chats begun as the server's own stream before their prompt was known: kept, left for a control request \
                 and begun anew, or untold the prompt, after which none is opened any more.",
                &["outcome"],
            )?,
            chats_rendered: counters(
                registry,
                "sidedraft_chats_rendered_total",
                "Prompts of chats by where they came from: the server, or another request in the same words a moment ago.",
                &["source"],
            )?,
            rollouts_running: add(registry, IntGauge::new("sidedraft_rollouts_running", "Rollouts under way.")?)?,
            connections: add(registry, IntGauge::new("sidedraft_connections", "Connections of clients.")?)?,
            upstream_changes: counter(
                registry,
                "sidedraft_upstream_changes_total",
                "Times that the server was found to serve another model than before, and probed anew.",
            )?,
            breaker_openings: counter(
                registry,
                "sidedraft_breaker_openings_total",
                "Times that connections to the server were held back after a row that could not be opened.",
            )?,
            upstream_ready: add(
                registry,
                IntGauge::new("sidedraft_upstream_ready", "1 while the upstream server is healthy and was probed.")?,
            )?,
        })
    }

    /// Counts a request whose outcome is certain.
    pub fn decided(&self, outcome: Outcome) {
        let (outcome, reason) = outcome.labels();
        self.by_outcome.with_label_values(&[outcome, reason]).inc();
    }

    /// Records how long a request took whose outcome was counted.
    pub fn ended(&self, outcome: Outcome, timer: Timer) {
        match outcome {
            Outcome::Forwarded(_) => self.forwarding.observe(timer.seconds()),
            _ => self.duration.with_label_values(&[outcome.labels().0]).observe(timer.seconds()),
        }
    }

    /// Counts the end of a request.
    pub fn finished(&self, outcome: Outcome, timer: Timer) {
        self.decided(outcome);
        self.ended(outcome, timer);
    }

    /// Counts a chat that began before its prompt was known.
    pub fn chat_opened(&self, outcome: Opened) {
        let outcome = match outcome {
            Opened::Kept => "kept",
            Opened::Left => "left",
            Opened::Untold => "untold",
        };
        self.chats_opened.with_label_values(&[outcome]).inc();
    }

    /// Counts a chat whose prompt came from this source.
    pub fn chat_rendered(&self, source: &str) {
        self.chats_rendered.with_label_values(&[source]).inc();
    }

    /// Counts a field that made the sidecar forward.
    pub fn unknown_field(&self, name: &str) {
        let mut named = self.named_fields.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if named.contains(name) {
            name
        } else if named.len() < Self::MOST_FIELDS && name.len() <= 64 {
            named.insert(name.to_owned());
            name
        } else {
            "other"
        };
        self.unknown_fields.with_label_values(&[label]).inc();
    }
}
