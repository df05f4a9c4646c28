//! What is counted of proposals, their verification and the drafters that made them.

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::members::Members;
use super::metrics::{SECONDS, add, counter, counters, seconds};
use super::timer::Timer;
use crate::draft::DraftError;
use crate::model::{Device, Fallback};

/// Proposals, verification and acceptance. The acceptance counters bear the names under which vLLM counts its own
/// speculation, so that dashboards made for it work.
#[derive(Debug, Clone)]
pub struct SpeculationMetrics {
    drafts: IntCounter,
    draft_tokens: IntCounter,
    accepted_tokens: IntCounter,
    drafted_by: IntCounterVec,
    accepted_by: IntCounterVec,
    /// Of both.
    drafters: Members<&'static str, (IntCounter, IntCounter)>,
    accepted_per_position: IntCounterVec,
    drafted_per_position: IntCounterVec,
    /// Of both.
    positions: Members<usize, (IntCounter, IntCounter)>,
    steps: IntCounterVec,
    steps_by: Members<(&'static str, &'static str), IntCounter>,
    decode_duration: Histogram,
    verify_calls: IntCounterVec,
    verify_duration: HistogramVec,
    /// Of both.
    strategies: Members<&'static str, (IntCounter, Histogram)>,
    verify_refused: IntCounterVec,
    /// Rows of drafts that the prefix cache had swallowed.
    pub lost_rows: IntCounter,
    /// Whole contexts computed because the server could not print rows that it had not.
    pub recomputed: IntCounter,
    class_rounds: IntCounterVec,
    /// Tokens that the server drew from outside the listed ids.
    pub tail_samples: IntCounter,
    /// Positions decided by the server's own sample because their row could not tell.
    pub unknown_rows: IntCounter,
    /// Tokens decoded plainly.
    pub decoded_tokens: IntCounter,
}

impl SpeculationMetrics {
    /// Draft positions that are counted without a lock.
    const POSITIONS: usize = 256;
    /// The same of ways to go on with their reasons, and of strategies: more than there are.
    const LABELS: usize = 64;

    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            drafts: counter(registry, "vllm:spec_decode_num_drafts_total", "Number of spec decoding drafts.")?,
            draft_tokens: counter(registry, "vllm:spec_decode_num_draft_tokens_total", "Number of draft tokens.")?,
            accepted_tokens: counter(
                registry,
                "vllm:spec_decode_num_accepted_tokens_total",
                "Number of accepted tokens.",
            )?,
            drafted_by: counters(
                registry,
                "sidedraft_drafted_tokens_total",
                "Draft tokens that were sent to be verified, by drafter.",
                &["drafter"],
            )?,
            accepted_by: counters(
                registry,
                "sidedraft_accepted_tokens_total",
                "Draft tokens that were accepted, by drafter.",
                &["drafter"],
            )?,
            drafters: Members::new(Self::LABELS),
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
            positions: Members::new(Self::POSITIONS),
            steps_by: Members::new(Self::LABELS),
            strategies: Members::new(Self::LABELS),
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
                "Contexts computed whole because the server could not tell of what it had not computed.",
            )?,
            class_rounds: counters(
                registry,
                "sidedraft_class_rounds_total",
                "Verified proposals of which old rows tell a part of what they were drawn from, by the ids judged apart: \
                 all that the old row lists, since the server scores given ids, or those that the new row lists, too.",
                &["ids"],
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

    /// Counts a verified proposal of a drafter's of `drafted` tokens, the first `accepted` of which were kept.
    pub fn round(&self, drafter: &'static str, drafted: usize, accepted: usize) {
        let own = self.drafters.of(0, drafter, || {
            let of = |family: &IntCounterVec| family.with_label_values(&[drafter]);
            (of(&self.drafted_by), of(&self.accepted_by))
        });
        own.0.inc_by(drafted as u64);
        own.1.inc_by(accepted as u64);
        self.drafts.inc();
        self.draft_tokens.inc_by(drafted as u64);
        self.accepted_tokens.inc_by(accepted as u64);
        for position in 0..drafted {
            let counters = self.positions.of(position, position, || {
                let label = position.to_string();
                let of = |family: &IntCounterVec| family.with_label_values(&[&label]);
                (of(&self.drafted_per_position), of(&self.accepted_per_position))
            });
            let (drafted, kept) = &*counters;
            drafted.inc();
            kept.inc_by(u64::from(position < accepted));
        }
    }

    /// Counts a step of a rollout in `mode`, taken for `reason`.
    pub fn step(&self, mode: &'static str, reason: &'static str) {
        self.steps_by.of(0, (mode, reason), || self.steps.with_label_values(&[mode, reason])).inc();
    }

    /// Times a decode stream until the result is dropped.
    pub fn decoding(&self) -> HistogramTimer {
        self.decode_duration.start_timer()
    }

    /// Counts a verified proposal that the class rule judges, by whether the ids of old rows were scored.
    pub fn judged_by_classes(&self, given_ids: bool) {
        self.class_rounds.with_label_values(&[if given_ids { "given" } else { "common" }]).inc();
    }

    /// Counts a refused verification by `strategy`.
    pub fn verify_refused(&self, strategy: &str) {
        self.verify_refused.with_label_values(&[strategy]).inc();
    }

    /// Counts a verification by `strategy`.
    pub fn verified(&self, strategy: &'static str, timer: Timer) {
        let metrics = self.strategies.of(0, strategy, || {
            (self.verify_calls.with_label_values(&[strategy]), self.verify_duration.with_label_values(&[strategy]))
        });
        let (calls, duration) = &*metrics;
        calls.inc();
        duration.observe(timer.seconds());
    }
}

/// Drafters by name.
#[derive(Debug, Clone)]
pub struct DraftMetrics {
    duration: HistogramVec,
    durations: Members<&'static str, Histogram>,
    failures: IntCounterVec,
    available: IntGaugeVec,
    model: IntGaugeVec,
    fallbacks: IntCounterVec,
}

impl DraftMetrics {
    /// Drafters that are timed without a lock.
    const DRAFTERS: usize = 16;

    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            durations: Members::new(Self::DRAFTERS),
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
            model: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "sidedraft_draft_model_info",
                        "1 for what runs the draft model: cpu, or cuda and the GPU's name.",
                    ),
                    &["device", "name"],
                )?,
            )?,
            fallbacks: counters(
                registry,
                "sidedraft_draft_model_fallbacks_total",
                "Draft models that run on the CPU because the GPU that is there cannot be used, by why.",
                &["reason"],
            )?,
        })
    }

    /// Says what runs the draft model, and counts it if that is for want of something better.
    pub fn runs_on(&self, device: &Device, fallback: Option<&Fallback>) {
        self.model.with_label_values(&[device.kind(), device.name()]).set(1);
        if let Some(fallback) = fallback {
            self.fallbacks.with_label_values(&[fallback.reason]).inc();
        }
    }

    /// Counts a proposal.
    pub fn proposed(&self, drafter: &'static str, timer: Timer) {
        self.durations.of(0, drafter, || self.duration.with_label_values(&[drafter])).observe(timer.seconds());
    }

    /// Counts a proposal that did not come about.
    pub fn failed(&self, drafter: &str, error: &DraftError) {
        let reason = match error {
            DraftError::Stopped(_) => "stopped",
            DraftError::UnknownToken(_) => "unknown_token",
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

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_draft_model_without_its_gpu_is_counted_by_why() {
        let metrics = Metrics::register().unwrap();
        metrics.draft.runs_on(&Device::Cuda { name: "NVIDIA H100".into() }, None);
        let page = metrics.encode();
        assert!(page.contains("sidedraft_draft_model_info{device=\"cuda\",name=\"NVIDIA H100\"} 1\n"), "{page}");
        assert!(!page.contains("sidedraft_draft_model_fallbacks_total"), "{page}");

        let metrics = Metrics::register().unwrap();
        let fallback = Fallback { reason: "memory", explanation: "too small".into() };
        metrics.draft.runs_on(&Device::Cpu, Some(&fallback));
        let page = metrics.encode();
        assert!(page.contains("sidedraft_draft_model_info{device=\"cpu\",name=\"\"} 1\n"), "{page}");
        assert!(page.contains("sidedraft_draft_model_fallbacks_total{reason=\"memory\"} 1\n"), "{page}");
    }
}
