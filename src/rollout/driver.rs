//! One rollout under way: step after step until it is over.
//!
//! What the next step is is decided in [`super::decide`]: either a decode stream ([`super::decode`]) or a proposal and its
//! verification ([`super::speculate`]).

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use super::control::{Member, Turn};
use super::decide::{Decision, Step};
use super::drafters::Drafters;
use super::engine::{EngineSettings, Shared};
use super::pace::Pace;
use super::past::Group;
use super::recording::Recording;
use super::sequence::Sequence;
use super::traced;
use super::types::{Delta, Rollout, RolloutError};
use super::versions::Versions;
use crate::speculation::{Entry, Judge, Sampling, Scored, TokenId};
use crate::telemetry::{Metrics, PanicMetrics, Place};
use crate::upstream::{Tokens, UpstreamError};
use crate::verify::{Drawn, Prefill, Terms};

/// One more in the count of rollouts, until it is dropped; if that is by a panic, one more in that count, too.
struct Counted {
    running: prometheus::IntGauge,
    panics: PanicMetrics,
}

impl Counted {
    fn new(metrics: &Metrics) -> Self {
        let running = metrics.requests.rollouts_running.clone();
        running.inc();
        Self { running, panics: metrics.panics.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.running.dec();
        if std::thread::panicking() {
            self.panics.note(Place::Rollout);
        }
    }
}

/// What a rollout has from the moment on that anything is done for it.
pub(super) struct Seat {
    /// Its part in the control plane.
    pub(super) member: Member,
    _counted: Counted,
}

impl Seat {
    /// Of the rollout that control requests know by `id`.
    pub(super) fn take(settings: &EngineSettings, id: &Arc<str>) -> Self {
        Self { member: settings.control.enter(Arc::clone(id)), _counted: Counted::new(&settings.metrics) }
    }
}

/// A rollout under way.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    seat: Seat,
    pub(super) terms: Terms,
    pub(super) sampling: Option<Sampling>,
    pub(super) sequence: Sequence,
    pub(super) versions: Versions,
    pub(super) drafters: Drafters,
    pub(super) judge: Judge,
    pub(super) rng: StdRng,
    pub(super) pace: Pace,
    /// Whether the client reads the tokens as they come.
    pub(super) is_streamed: bool,
    /// Ids that end the rollout: nothing is worth drafting after them.
    pub(super) ends: Vec<TokenId>,
    pub(super) name: Arc<str>,
    /// What log lines and traces have of it.
    pub(super) span: Span,
    /// Committed since the last delta.
    fresh: Vec<Scored>,
    /// What becomes of them in the history.
    recording: Option<Recording>,
    pub(super) prefill: Option<Prefill>,
    /// A decision that was made while decoding, and what the drafters had ready then.
    pub(super) decided: Option<Decision>,
    /// The stream that it began as, and the turn that this takes.
    opened: Option<(Turn, Tokens)>,
    events: mpsc::Sender<Result<Delta, RolloutError>>,
}

impl Running {
    pub(super) fn new(
        shared: Arc<Shared>,
        rollout: Rollout,
        sample: usize,
        seat: Seat,
        group: Option<Group>,
        events: mpsc::Sender<Result<Delta, RolloutError>>,
    ) -> Self {
        let settings = &shared.settings;
        let tokenizer = settings.tokenizer.clone();
        let rules = &rollout.rules;
        let drafters = Drafters::new(settings.drafters.as_ref(), group.as_ref(), settings.metrics.draft.clone());
        shared.believe_in_replays(&drafters);
        let model_ends = rules.end_tokens.keys().filter(|_| !rules.ignore_eos);
        Self {
            span: traced::rollout(&rollout.id, sample, rollout.prompt.len(), &rollout.terms.origin.headers),
            seat,
            pace: Pace::new(shared.monitor.clone(), &rollout.prompt),
            ends: model_ends.chain(&rules.stop_token_ids).copied().collect(),
            name: rollout.id,
            is_streamed: rollout.prefill.is_streamed,
            // The suffix index has the texts; the rollouts themselves are for those that replay them, and for others who
            // share them.
            recording: group
                .clone()
                .filter(|group| group.past.replays || group.past.is_shared)
                .map(|group| Recording::new(group, rollout.terms.rows)),
            terms: rollout.terms,
            sampling: rollout.sampling,
            sequence: Sequence::new(rollout.prompt, rollout.rules, tokenizer, rollout.text),
            versions: Versions::default(),
            drafters,
            // Without known sampling parameters every observation is a sample, for which they do not matter.
            judge: Judge::new(rollout.sampling.unwrap_or(Sampling::greedy()), Arc::clone(&settings.rule)),
            rng: StdRng::from_os_rng(),
            fresh: Vec::new(),
            prefill: None,
            decided: None,
            opened: None,
            events,
            shared,
        }
    }

    /// Goes on with a stream that was opened before its prompt was known.
    pub(super) fn continue_stream(&mut self, turn: Turn, tokens: Tokens) {
        self.opened = Some((turn, tokens));
    }

    /// Lets the drafters read what there is while the server goes on.
    pub(super) fn prepare(&mut self) {
        self.drafters.prepare(self.sequence.tokens());
        self.pace.prepared(self.sequence.tokens().len());
    }

    /// Completes when nobody listens any more.
    pub(super) fn deserted(&self) -> impl Future<Output = ()> + Send + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// Its part in the control plane.
    pub(super) fn member(&self) -> &Member {
        &self.seat.member
    }

    /// Tells the listener of an error, which ends it.
    pub(super) async fn fail(mut self, error: RolloutError) {
        if matches!(error, RolloutError::Upstream(UpstreamError::Aborted)) {
            self.sequence.abort();
            self.flush().await;
        } else {
            traced::failed(&self.span, self.sequence.committed(), &error);
            // A listener that has gone does not need to know.
            let _ = self.events.send(Err(error)).await;
        }
    }

    /// Ends it with what it has.
    pub(super) async fn give_up(mut self) {
        self.sequence.abort();
        self.flush().await;
    }

    /// Goes on from its first token, or from its prompt, to its end.
    pub(super) async fn run(self, first: Option<(Drawn, Prefill)>) {
        let span = self.span.clone();
        self.go_on(first).instrument(span).await;
    }

    async fn go_on(mut self, first: Option<(Drawn, Prefill)>) {
        let (deserted, aborted) = (self.deserted(), self.member().aborted());
        let result = tokio::select! {
            biased;
            () = deserted => return traced::ended(&self.span, self.sequence.committed(), "deserted"),
            () = aborted => Err(UpstreamError::Aborted.into()),
            result = self.drive(first) => result,
        };
        if let Err(error) = result {
            self.fail(error).await;
        }
    }

    async fn drive(&mut self, first: Option<(Drawn, Prefill)>) -> Result<(), RolloutError> {
        if let Some(((first, version), prefill)) = first {
            self.prefill = Some(prefill);
            self.shared.settings.metrics.speculation.decoded_tokens.inc();
            let version = version.map_or_else(|| self.shared.settings.control.version(), Arc::from);
            self.commit(first, &version)?;
        }
        while self.flush().await {
            self.terms.constraints.min_tokens = self.sequence.barred();
            let step = self.next_step().await;
            let (turn, opened) = match self.opened.take() {
                Some((turn, tokens)) => (turn, Some(tokens)),
                None => (self.member().turn().await, None),
            };
            let broken = turn.broken();
            let step = async {
                match step {
                    Step::Decode { length, at_least } => {
                        let (span, before) = (traced::decode(), self.sequence.committed());
                        let decoded = self.decode(length, at_least, &turn, opened).instrument(span.clone()).await;
                        traced::note(&span, "tokens", self.sequence.committed() - before);
                        decoded
                    }
                    Step::Speculate(proposed) => {
                        let name = self.drafters.name(proposed.drafter);
                        let span = traced::round(name, proposed.proposal.drafts.len());
                        self.speculate(&proposed, &turn, &span).instrument(span.clone()).await
                    }
                }
            };
            tokio::select! {
                biased;
                result = step => result?,
                // What was committed stays: it was decided before the control request went on.
                () = broken => {}
            }
        }
        Ok(())
    }

    /// Adds a token that was scored under `version`; `true` once the rollout is over.
    pub(super) fn commit(&mut self, scored: Scored, version: &Arc<str>) -> Result<bool, RolloutError> {
        if let Some(recording) = &mut self.recording {
            recording.push(&scored, &scored.top);
        }
        self.take_in(scored, version)
    }

    /// The same of a token from outside of a row whose likeliest tokens are `top`.
    pub(super) fn commit_outside(
        &mut self,
        scored: Scored,
        top: &[Entry],
        version: &Arc<str>,
    ) -> Result<bool, RolloutError> {
        if let Some(recording) = &mut self.recording {
            recording.push(&scored, top);
        }
        self.take_in(scored, version)
    }

    fn take_in(&mut self, scored: Scored, version: &Arc<str>) -> Result<bool, RolloutError> {
        self.pace.started();
        self.versions.stamp(self.sequence.committed(), version);
        let finished = self.sequence.commit(&scored)?.is_some();
        self.fresh.push(scored);
        Ok(finished)
    }

    /// The version that a reply bears, or else the one that the server is believed to have.
    pub(super) fn version(&self, told: Option<&str>, turn: &Turn) -> Arc<str> {
        match told {
            Some(told) if **turn.version() != *told => {
                self.shared.settings.control.observe_version(told);
                Arc::from(told)
            }
            _ => Arc::clone(turn.version()),
        }
    }

    /// Leaves what is new to others.
    fn remember(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.write(&self.versions);
            if let Some(finish) = self.sequence.finish() {
                recording.finish(finish.reason);
            }
        }
        self.drafters.tell(self.sequence.tokens());
    }

    /// Tells the listener what is new; `true` while the rollout goes on and somebody listens. Nothing is lost where
    /// this is left off while it waits for a slow listener.
    pub(super) async fn flush(&mut self) -> bool {
        let over = self.sequence.finish().is_some();
        if self.fresh.is_empty() && !over {
            return true;
        }
        // Before anybody has seen it, who might leave because of it.
        self.remember();
        if let Some(finish) = self.sequence.finish() {
            traced::ended(&self.span, self.sequence.committed(), traced::name(finish.reason));
        }
        let Ok(listener) = self.events.reserve().await else { return false };
        let monitor = &self.pace.monitor;
        monitor.load().earn(self.fresh.len(), monitor.is_crowded());
        listener.send(Ok(Delta {
            tokens: std::mem::take(&mut self.fresh),
            text: self.sequence.take_text(),
            finish: self.sequence.finish().cloned(),
            prefill: self.prefill.take(),
            versions: over.then(|| self.versions.spans(self.sequence.committed())),
        }));
        !over
    }
}
