//! Runs rollouts against one server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};

use tokio::sync::mpsc;
use tracing::Instrument;

use super::control::{Control, Member};
use super::controller::monitor::Monitor;
use super::controller::{Belief, Choice, Measurement, Policy, Reason, Speculate};
use super::drafters::{DrafterFactory, Drafters};
use super::driver::{Running, Seat};
use super::past::Past;
use super::traced;
use super::types::{Delta, Rollout, RolloutError};
use crate::speculation::AcceptanceRule;
use crate::telemetry::Metrics;
use crate::text::Tokenizer;
use crate::upstream::{Capabilities, Prompt, Renderings, Upstream};
use crate::verify::{CachedSuffix, Drawn, FanOut, Prefill, PromptLogprobs, Sampler, Strategy, Verifier};

/// What all rollouts against one server share.
pub struct EngineSettings {
    /// The server.
    pub upstream: Upstream,
    /// What it can do.
    pub capabilities: Arc<Capabilities>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where drafters come from.
    pub drafters: Arc<dyn DrafterFactory>,
    /// When to draft how much.
    pub policy: Policy,
    /// What is kept.
    pub rule: Arc<dyn AcceptanceRule>,
    /// What rollouts leave to each other, if anything.
    pub past: Option<Past>,
    /// What a trainer's control requests do.
    pub control: Control,
    /// What is counted.
    pub metrics: Metrics,
}

/// Runs rollouts against one server. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) settings: EngineSettings,
    pub(super) sampler: Sampler,
    pub(super) monitor: Monitor,
    /// Whether the rollout that began last did so by decoding, for a reason that is expected to last.
    pub(super) decodes_first: AtomicBool,
    /// Whether a chat stream did not tell its prompt.
    pub(super) has_untold: AtomicBool,
    pub(super) renderings: Renderings,
    fingerprint: OnceLock<String>,
    /// Set once the controller was told what to expect of old rollouts.
    believes: Once,
    cached_suffix: CachedSuffix,
    prompt_logprobs: PromptLogprobs,
    fan_out: FanOut,
}

/// A rollout's deltas as they come; the last one has a finish, or is the error that ended the rollout.
pub type Deltas = mpsc::Receiver<Result<Delta, RolloutError>>;

/// How many deltas a rollout may be ahead of its client.
pub(super) const AHEAD: usize = 32;

impl Engine {
    /// An engine with these settings. Its monitor is a task of the runtime that this is called in.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Self {
        let (upstream, capabilities) = (&settings.upstream, &settings.capabilities);
        let sampler = Sampler::new(upstream.clone(), capabilities.rust_frontend, capabilities.max_logprobs);
        let cached_suffix =
            CachedSuffix::new(upstream.clone(), sampler.clone(), &capabilities.generate, capabilities.max_logprobs);
        let prompt_logprobs = PromptLogprobs::new(upstream.clone());
        let fan_out = FanOut::new(sampler.clone());
        let decides = settings.policy.speculate == Speculate::Auto;
        let monitor = Monitor::start(decides.then(|| upstream.clone()), &settings.metrics.panics);
        let fingerprint = OnceLock::new();
        let shared = Shared {
            settings,
            sampler,
            monitor,
            decodes_first: AtomicBool::new(false),
            has_untold: AtomicBool::new(false),
            renderings: Renderings::default(),
            fingerprint,
            believes: Once::new(),
            cached_suffix,
            prompt_logprobs,
            fan_out,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the server can do.
    #[must_use]
    pub fn capabilities(&self) -> &Arc<Capabilities> {
        &self.shared.settings.capabilities
    }

    /// The server's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.settings.tokenizer
    }

    /// The server.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.shared.settings.upstream
    }

    /// The operator's choices.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.settings.policy
    }

    /// How many of the likeliest tokens are remembered with each token.
    #[must_use]
    pub fn remembered_rows(&self) -> usize {
        self.shared.settings.past.as_ref().map_or(0, |past| past.rows_of(self.capabilities()))
    }

    /// What a trainer's control requests act on.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.shared.settings.control
    }

    /// Starts `n` rollouts of one prompt, which the server reads once. Each stops, and drops what it was waiting for,
    /// when its receiver is dropped.
    #[must_use]
    pub fn start(&self, rollout: Rollout, n: usize) -> Vec<Deltas> {
        let past = self.shared.settings.past.as_ref();
        let group = past.and_then(|past| past.of(&rollout, self.capabilities()));
        let mut runs = Vec::with_capacity(n);
        let mut all = Vec::with_capacity(n);
        for sample in 0..n {
            let (events, deltas) = mpsc::channel(AHEAD);
            let (shared, seat) = (Arc::clone(&self.shared), Seat::take(&self.shared.settings, &rollout.id));
            runs.push(Running::new(shared, rollout.clone(), sample, seat, group.clone(), events));
            all.push(deltas);
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Some(group) = group {
                group.expect(&shared.settings.control.version(), n).await;
            }
            shared.group(&rollout, runs).await;
        });
        all
    }
}

impl Shared {
    pub(super) fn verifier(&self, strategy: Strategy) -> &dyn Verifier {
        match strategy {
            Strategy::CachedSuffix => &self.cached_suffix,
            Strategy::PromptLogprobs => &self.prompt_logprobs,
            Strategy::FanOut => &self.fan_out,
        }
    }

    /// Tells the controller what to expect of old rollouts before any was judged: a policy moves little in a step, and of an
    /// old rollout of the benchmark's policies two thirds to three quarters were kept before the first rejection, about a
    /// hundred tokens. After they have parted, texts that agree again at one place are likely to go on so.
    pub(super) fn believe_in_replays(&self, drafters: &Drafters) {
        const ACCEPTANCE: f64 = 0.98;
        if let Some(drafter) = drafters.replay_number() {
            self.believes.call_once(|| {
                let report = |drafter, belief| self.monitor.report(Measurement::Believed { drafter, belief });
                report(drafter, Belief::Acceptance(ACCEPTANCE));
                report(drafter + 1, Belief::Like(drafter));
            });
        }
    }

    /// The server's `system_fingerprint`, which only some of its events bear: the last one seen, or else the first ever.
    pub(super) fn fingerprint(&self, seen: Option<String>) -> Option<String> {
        match seen {
            Some(seen) => {
                // The first is as good as any later one.
                let _ = self.fingerprint.set(seen.clone());
                Some(seen)
            }
            None => self.fingerprint.get().cloned(),
        }
    }

    /// Has the prompt read and sets every rollout going with its first token.
    pub(super) async fn group(&self, rollout: &Rollout, runs: Vec<Running>) {
        let mut runs = self.begin_by_replay(rollout, runs).await;
        if runs.is_empty() {
            return;
        }
        let decoding = self.begin(&mut runs).await;
        if let Some(choice) = decoding.filter(|_| rollout.may_begin_as_stream(runs.len())) {
            for mut run in runs {
                run.begin_as(choice);
                tokio::spawn(run.run(None));
            }
            return;
        }
        let gone = futures_util::future::join_all(runs.iter().map(Running::deserted));
        let Some((first, span)) = runs.first().map(|first| (first.member(), &first.span)) else { return };
        let span = traced::prefill(span, rollout.prompt.len(), runs.len());
        let prefill = tokio::select! {
            biased;
            _ = gone => return,
            () = first.aborted() => None,
            prefill = self.prefill(rollout, first, runs.len()).instrument(span) => Some(prefill),
        };
        match prefill {
            Some(Ok((drawn, prefill))) => {
                for (run, first) in runs.into_iter().zip(drawn) {
                    let prefill = prefill.clone();
                    tokio::spawn(run.run(Some((first, prefill))));
                }
            }
            Some(Err(error)) => {
                for run in runs {
                    run.fail(error.clone()).await;
                }
            }
            None => {
                for run in runs {
                    run.give_up().await;
                }
            }
        }
    }

    /// The choice by which these rollouts of one prompt should begin by decoding, if they should.
    ///
    /// Their first token comes plainly in any case: it fills the prefix cache, which every verification needs, and the draft
    /// model reads the prompt meanwhile, unless it will hardly be asked.
    pub(super) async fn begin(&self, runs: &mut [Running]) -> Option<Choice> {
        let decoding = runs.first_mut()?.begins_decoding().await;
        let undecided = |choice: Choice| matches!(choice.reason, Reason::Unmeasured | Reason::Stale);
        if decoding.is_none_or(|choice| undecided(choice) && !self.monitor.is_crowded()) {
            runs.iter_mut().for_each(Running::prepare);
        }
        self.decodes_first.store(decoding.is_some_and(|choice| !undecided(choice)), Ordering::Relaxed);
        decoding
    }

    /// Sets those going that begin with an old rollout's tokens, and gives back the others. They need no first token, and
    /// have the prompt read with the drafts.
    async fn begin_by_replay(&self, rollout: &Rollout, runs: Vec<Running>) -> Vec<Running> {
        if self.settings.past.as_ref().is_none_or(|past| !past.replays) {
            return runs;
        }
        let vocabulary = self.settings.tokenizer.vocabulary_size();
        let mut others = Vec::new();
        for mut run in runs {
            if rollout.may_begin_by_rows(vocabulary) && run.begins_by_replay().await {
                tokio::spawn(run.run(None));
            } else {
                others.push(run);
            }
        }
        others
    }

    async fn prefill(
        &self,
        rollout: &Rollout,
        first: &Member,
        n: usize,
    ) -> Result<(Vec<Drawn>, Prefill), RolloutError> {
        let mut terms = rollout.terms.clone();
        terms.constraints.min_tokens = rollout.rules.min_tokens;
        loop {
            let turn = first.turn().await;
            let call = self.sampler.prefill(&terms, Prompt::from(&rollout.prompt), n, rollout.prefill);
            tokio::select! {
                biased;
                prefill = call => {
                    let (mut drawn, prefill) = prefill?;
                    for (_, version) in &mut drawn {
                        version.get_or_insert_with(|| turn.version().to_string());
                    }
                    return Ok((drawn, prefill));
                }
                () = turn.broken() => {}
            }
        }
    }
}
