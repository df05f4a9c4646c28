//! What the sidecar counts, in a registry of its own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::control::ControlMetrics;
use crate::draft::DraftError;

const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

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
}

impl Outcome {
    /// Outcome and reason.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Speculated => ("speculated", ""),
            Self::Forwarded(reason) => ("forwarded", reason),
            Self::Failed => ("failed", ""),
            Self::Cancelled => ("cancelled", ""),
        }
    }
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
            registry,
        })
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

fn seconds(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
    add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?)
}

/// Requests by outcome and how long they took.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    by_outcome: IntCounterVec,
    duration: HistogramVec,
    unknown_fields: IntCounterVec,
    named_fields: Arc<Mutex<HashSet<String>>>,
    /// Rollouts under way.
    pub rollouts_running: IntGauge,
    /// 1 while the server answers its health check and its capabilities are known.
    pub upstream_ready: IntGauge,
}

impl RequestMetrics {
    /// Clients choose the names of unknown fields; so many of them get a time series of their own.
    const MOST_FIELDS: usize = 64;

    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let outcome = ["outcome", "reason"];
        Ok(Self {
            by_outcome: counters(registry, "sidedraft_requests_total", "Requests by what became of them.", &outcome)?,
            duration: seconds(
                registry,
                "sidedraft_request_duration_seconds",
                "Time from a request's arrival to the end of its reply.",
                &["outcome"],
            )?,
            unknown_fields: counters(
                registry,
                "sidedraft_unknown_fields_total",
                "Requests forwarded because of a field that is not known.",
                &["field"],
            )?,
            named_fields: Arc::default(),
            rollouts_running: add(registry, IntGauge::new("sidedraft_rollouts_running", "Rollouts under way.")?)?,
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
        self.duration.with_label_values(&[outcome.labels().0]).observe(timer.seconds());
    }

    /// Counts the end of a request.
    pub fn finished(&self, outcome: Outcome, timer: Timer) {
        self.decided(outcome);
        self.ended(outcome, timer);
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

/// A running clock.
#[derive(Debug, Clone, Copy)]
pub struct Timer(Instant);

impl Timer {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since its start.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Proposals, verification and acceptance. The acceptance counters bear the names under which vLLM counts its own
/// speculation, so that dashboards made for it work.
#[derive(Debug, Clone)]
pub struct SpeculationMetrics {
    drafts: IntCounter,
    draft_tokens: IntCounter,
    accepted_tokens: IntCounter,
    accepted_per_position: IntCounterVec,
    drafted_per_position: IntCounterVec,
    steps: IntCounterVec,
    decode_duration: Histogram,
    verify_calls: IntCounterVec,
    verify_duration: HistogramVec,
    verify_refused: IntCounterVec,
    /// Rows of drafts that the prefix cache had swallowed.
    pub lost_rows: IntCounter,
    /// Whole contexts computed because the server could not print rows that it had not.
    pub recomputed: IntCounter,
    /// Tokens that the server drew from outside the listed ids.
    pub tail_samples: IntCounter,
    /// Positions decided by the server's own sample because their row could not tell.
    pub unknown_rows: IntCounter,
    /// Tokens decoded plainly.
    pub decoded_tokens: IntCounter,
}

impl SpeculationMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            drafts: counter(registry, "vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.")?,
            draft_tokens: counter(registry, "vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.")?,
            accepted_tokens: counter(
                registry,
                "vllm:spec_decode_num_accepted_tokens_total",
                "Number of accepted tokens.",
            )?,
            accepted_per_position: counters(
                registry,
                "vllm:spec_decode_num_accepted_tokens_per_pos_total",
                "Accepted tokens per draft position.",
                &["position"],
            )?,
            drafted_per_position: counters(
                registry,
                "sidedraft_drafted_tokens_per_pos_total",
                "Drafted tokens per draft position.",
                &["position"],
            )?,
            steps: counters(
                registry,
                "sidedraft_steps_total",
                "Steps of rollouts (a decode stream or a verified proposal) by why they were taken.",
                &["mode", "reason"],
            )?,
            decode_duration: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "sidedraft_decode_duration_seconds",
                        "Time that rollouts spent in a decode stream.",
                    )
                    .buckets(SECONDS.to_vec()),
                )?,
            )?,
            verify_calls: counters(
                registry,
                "sidedraft_verify_calls_total",
                "Verifications by strategy.",
                &["strategy"],
            )?,
            verify_duration: seconds(
                registry,
                "sidedraft_verify_duration_seconds",
                "Time the server took to verify.",
                &["strategy"],
            )?,
            verify_refused: counters(
                registry,
                "sidedraft_verify_refused_total",
                "Verifications that the server refused, after which the rollout was decoded plainly.",
                &["strategy"],
            )?,
            lost_rows: counter(
                registry,
                "sidedraft_lost_rows_total",
                "Rows of drafts that the server's prefix cache had swallowed and that were asked for again.",
            )?,
            recomputed: counter(
                registry,
                "sidedraft_recomputed_contexts_total",
                "Contexts computed whole because the server could not print rows that it had not computed.",
            )?,
            tail_samples: counter(
                registry,
                "sidedraft_tail_samples_total",
                "Tokens drawn by the server from outside the listed ids.",
            )?,
            unknown_rows: counter(
                registry,
                "sidedraft_unknown_rows_total",
                "Positions whose row left the target open, decided by the server's own sample.",
            )?,
            decoded_tokens: counter(registry, "sidedraft_decoded_tokens_total", "Tokens decoded without a draft.")?,
        })
    }

    /// Counts a verified proposal of `drafted` tokens, the first `accepted` of which were kept.
    pub fn round(&self, drafted: usize, accepted: usize) {
        self.drafts.inc();
        self.draft_tokens.inc_by(drafted as u64);
        self.accepted_tokens.inc_by(accepted as u64);
        for position in 0..drafted {
            let position_label = position.to_string();
            self.drafted_per_position.with_label_values(&[&position_label]).inc();
            if position < accepted {
                self.accepted_per_position.with_label_values(&[&position_label]).inc();
            }
        }
    }

    /// Counts a step of a rollout in `mode`, taken for `reason`.
    pub fn step(&self, mode: &str, reason: &str) {
        self.steps.with_label_values(&[mode, reason]).inc();
    }

    /// Times a decode stream until the result is dropped.
    pub fn decoding(&self) -> HistogramTimer {
        self.decode_duration.start_timer()
    }

    /// Counts a refused verification by `strategy`.
    pub fn verify_refused(&self, strategy: &str) {
        self.verify_refused.with_label_values(&[strategy]).inc();
    }

    /// Counts a verification by `strategy`.
    pub fn verified(&self, strategy: &str, timer: Timer) {
        self.verify_calls.with_label_values(&[strategy]).inc();
        self.verify_duration.with_label_values(&[strategy]).observe(timer.seconds());
    }
}

/// Drafters by name.
#[derive(Debug, Clone)]
pub struct DraftMetrics {
    duration: HistogramVec,
    failures: IntCounterVec,
    available: IntGaugeVec,
}

impl DraftMetrics {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            duration: seconds(
                registry,
                "sidedraft_draft_duration_seconds",
                "Time a drafter took for a proposal.",
                &["drafter"],
            )?,
            failures: counters(
                registry,
                "sidedraft_draft_failures_total",
                "Proposals that a drafter could not make, by why.",
                &["drafter", "reason"],
            )?,
            available: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("sidedraft_drafter_available", "1 while the drafter can be asked."),
                    &["drafter"],
                )?,
            )?,
        })
    }

    /// Counts a proposal.
    pub fn proposed(&self, drafter: &str, timer: Timer) {
        self.duration.with_label_values(&[drafter]).observe(timer.seconds());
    }

    /// Counts a proposal that did not come about.
    pub fn failed(&self, drafter: &str, error: &DraftError) {
        let reason = match error {
            DraftError::Stopped(_) => "stopped",
            DraftError::Failed(_) => "failed",
        };
        self.failures.with_label_values(&[drafter, reason]).inc();
    }

    /// Says that a drafter is there or, with a reason, that it is not.
    pub fn availability(&self, drafter: &str, missing_because: Option<&str>) {
        self.available.with_label_values(&[drafter]).set(i64::from(missing_because.is_none()));
        if let Some(reason) = missing_because {
            self.failures.with_label_values(&[drafter, reason]).inc();
        }
    }
}
