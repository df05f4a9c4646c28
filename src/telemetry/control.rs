//! What is counted of a trainer's control requests.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{add, counter, counters};

/// What a trainer's control requests did to rollouts.
#[derive(Debug, Clone)]
pub struct ControlMetrics {
    requests: IntCounterVec,
    policy: IntGaugeVec,
    /// 1 while generation is paused.
    pub paused: IntGauge,
    /// Rollouts that were aborted by a request.
    pub aborted_rollouts: IntCounter,
    /// Control requests for which steps had to be broken off.
    pub broken_turns: IntCounter,
    /// Policy versions that replies bore and nobody had announced.
    pub unannounced_versions: IntCounter,
    /// Verifications thrown away because they were made under an older policy than the rollout's newest token.
    pub stale_rounds: IntCounter,
}

impl ControlMetrics {
    const LONGEST_VERSION: usize = 64;

    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counters(
                registry,
                "sidedraft_control_requests_total",
                "Control requests that passed through, by route.",
                &["route"],
            )?,
            policy: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("sidedraft_policy_info", "1 for the policy version that the server is believed to have."),
                    &["version"],
                )?,
            )?,
            paused: add(registry, IntGauge::new("sidedraft_paused", "1 while generation is paused.")?)?,
            aborted_rollouts: counter(
                registry,
                "sidedraft_aborted_rollouts_total",
                "Rollouts that a control request aborted.",
            )?,
            broken_turns: counter(
                registry,
                "sidedraft_broken_turns_total",
                "Control requests that broke off steps which did not end by themselves.",
            )?,
            unannounced_versions: counter(
                registry,
                "sidedraft_unannounced_versions_total",
                "Policy versions in replies that no control request had announced.",
            )?,
            stale_rounds: counter(
                registry,
                "sidedraft_stale_rounds_total",
                "Verifications thrown away because they were made under an older policy.",
            )?,
        })
    }

    /// Shows the policy version, of which there is one at a time.
    pub fn policy(&self, version: &str) {
        // It is a client's word, and a time series for good.
        let shown: String = version.chars().take(Self::LONGEST_VERSION).collect();
        self.policy.reset();
        self.policy.with_label_values(&[shown]).set(1);
    }

    /// Counts a control request to `route`.
    pub fn request(&self, route: &str) {
        self.requests.with_label_values(&[route]).inc();
    }
}
