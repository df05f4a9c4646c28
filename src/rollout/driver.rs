//! The loop: propose, verify, accept, commit.

use std::sync::Arc;

use futures_util::StreamExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::control::{Member, Turn};
use super::controller::{self, Plan};
use super::drafters::Drafters;
use super::engine::Shared;
use super::sequence::Sequence;
use super::types::{Delta, Rollout, RolloutError};
use super::versions::Versions;
use crate::draft::DraftRequest;
use crate::speculation::{Draft, Next, Observation, Proposal, Sampling, Scored, TailVerdict, judge_tail, walk};
use crate::telemetry::Timer;
use crate::upstream::UpstreamError;
use crate::verify::{Drawn, Evidence, Prefill, Round, Terms, sampled_as_scored};

/// How many times the server may answer the draws from a position's tail with a token it was told not to draw.
const MOST_LEAKS: usize = 64;

/// One more in a gauge, also while a panic unwinds.
struct Counted(prometheus::IntGauge);

impl Counted {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A rollout under way.
pub(super) struct Running {
    shared: Arc<Shared>,
    member: Member,
    terms: Terms,
    sampling: Option<Sampling>,
    sequence: Sequence,
    versions: Versions,
    drafters: Drafters,
    rng: StdRng,
    /// Committed since the last delta.
    fresh: Vec<Scored>,
    prefill: Option<Prefill>,
    events: mpsc::Sender<Result<Delta, RolloutError>>,
    _counted: Counted,
}

impl Running {
    pub(super) fn new(
        shared: Arc<Shared>,
        rollout: Rollout,
        events: mpsc::Sender<Result<Delta, RolloutError>>,
    ) -> Self {
        let settings = &shared.settings;
        let tokenizer = settings.tokenizer.clone();
        Self {
            member: settings.control.enter(rollout.id),
            terms: rollout.terms,
            sampling: rollout.sampling,
            sequence: Sequence::new(rollout.prompt, rollout.rules, tokenizer, rollout.text),
            versions: Versions::default(),
            drafters: Drafters::new(settings.drafters.as_ref(), settings.metrics.draft.clone()),
            rng: StdRng::from_os_rng(),
            fresh: Vec::new(),
            prefill: None,
            events,
            _counted: Counted::new(&settings.metrics.requests.rollouts_running),
            shared,
        }
    }

    /// Lets the drafters read the prompt.
    pub(super) fn prepare(&mut self) {
        self.drafters.prepare(self.sequence.tokens());
    }

    /// Completes when nobody listens any more.
    pub(super) fn deserted(&self) -> impl Future<Output = ()> + Send + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// Its part in the control plane.
    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// Tells the listener of an error, which ends it.
    pub(super) async fn fail(mut self, error: RolloutError) {
        if matches!(error, RolloutError::Upstream(UpstreamError::Aborted)) {
            self.sequence.abort();
            self.flush().await;
        } else {
            // A listener that has gone does not need to know.
            let _ = self.events.send(Err(error)).await;
        }
    }

    /// Ends it with what it has.
    pub(super) async fn give_up(mut self) {
        self.sequence.abort();
        self.flush().await;
    }

    /// Goes on from its first token to its end.
    pub(super) async fn run(mut self, first: Drawn, prefill: Prefill) {
        self.prefill = Some(prefill);
        let (deserted, aborted) = (self.deserted(), self.member.aborted());
        let result = tokio::select! {
            biased;
            () = deserted => return,
            () = aborted => Err(UpstreamError::Aborted.into()),
            result = self.drive(first) => result,
        };
        if let Err(error) = result {
            self.fail(error).await;
        }
    }

    async fn drive(&mut self, (first, version): Drawn) -> Result<(), RolloutError> {
        self.shared.settings.metrics.speculation.decoded_tokens.inc();
        let version = version.map_or_else(|| self.shared.settings.control.version(), Arc::from);
        self.commit(first, &version)?;
        while self.flush().await {
            self.terms.constraints.min_tokens = self.sequence.barred();
            let proposal = self.propose().await;
            let turn = self.member.turn().await;
            let broken = turn.broken();
            let step = async {
                if proposal.drafts.is_empty() {
                    self.decode(&turn).await
                } else {
                    self.speculate(&proposal, &turn).await
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
    fn commit(&mut self, scored: Scored, version: &Arc<str>) -> Result<bool, RolloutError> {
        self.versions.stamp(self.sequence.committed(), version);
        let finished = self.sequence.commit(&scored)?.is_some();
        self.fresh.push(scored);
        Ok(finished)
    }

    /// The version that a reply bears, or else the one that the server is believed to have.
    fn version(&self, told: Option<&str>, turn: &Turn) -> Arc<str> {
        match told {
            Some(told) if **turn.version() != *told => {
                self.shared.settings.control.observe_version(told);
                Arc::from(told)
            }
            _ => Arc::clone(turn.version()),
        }
    }

    /// Tells the listener what is new; `true` while the rollout goes on and somebody listens. Nothing is lost where
    /// this is left off while it waits for a slow listener.
    async fn flush(&mut self) -> bool {
        let over = self.sequence.finish().is_some();
        if self.fresh.is_empty() && !over {
            return true;
        }
        let Ok(listener) = self.events.reserve().await else { return false };
        listener.send(Ok(Delta {
            tokens: std::mem::take(&mut self.fresh),
            text: self.sequence.take_text(),
            finish: self.sequence.finish().cloned(),
            prefill: self.prefill.take(),
            versions: over.then(|| self.versions.spans(self.sequence.committed())),
        }));
        !over
    }

    async fn propose(&mut self) -> Proposal {
        // Verification brings a token more than was drafted.
        let mut length = self.shared.settings.policy.draft_tokens.min(self.sequence.room() - 1);
        // All positions of a round are under the same constraints.
        if self.sequence.barred() > 0 {
            length = length.min(self.sequence.barred() - 1);
        }
        if length == 0 {
            return Proposal::default();
        }
        let request = DraftRequest {
            temperature: self.sampling.map_or(1.0, |sampling| sampling.temperature()),
            top_k: self.sampling.and_then(|sampling| sampling.top_k()),
            ..DraftRequest::new(self.sequence.tokens(), length)
        };
        let mut proposal = self.drafters.propose(request).await;
        proposal.drafts.truncate(length);
        proposal
    }

    /// Decodes plainly: a burst of tokens, or all the rest if nobody is left to draft, or up to a control request.
    async fn decode(&mut self, turn: &Turn) -> Result<(), RolloutError> {
        let room = self.sequence.room();
        let burst = self.shared.settings.policy.decode_burst;
        // Where a few more tokens are under other constraints than the rest, those come first.
        let barred = self.sequence.barred();
        let burst = if barred > 0 { burst.min(barred) } else { burst };
        let length = if self.drafters.is_empty() { room } else { room.min(burst) };
        let start = self.sequence.committed();
        let stream = self.shared.sampler.decode(&self.terms, self.sequence.tokens(), length).await?;
        let mut stream = std::pin::pin!(stream);
        let mut wanted = std::pin::pin!(turn.is_wanted());
        let mut decoded = 0_usize;
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = stream.next() => chunk,
                // The tokens that came were sampled before the control request went on.
                () = &mut wanted => return Ok(()),
            };
            let chunk = match chunk {
                Some(Ok(chunk)) => chunk,
                // What came is committed, so the rest can be asked for again.
                Some(Err(error)) if decoded > 0 && error.is_transient() => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => break,
            };
            for sampled in chunk.tokens {
                decoded += 1;
                self.shared.settings.metrics.speculation.decoded_tokens.inc();
                let over = self.commit(sampled_as_scored(sampled, self.terms.logprobs), turn.version())?;
                if over {
                    break;
                }
            }
            for span in chunk.versions {
                let version = self.version(Some(&span.version), turn);
                self.versions.stamp(start + span.start, &version);
            }
            if self.sequence.finish().is_some() || decoded >= length {
                return Ok(());
            }
            tokio::select! {
                biased;
                goes_on = self.flush() => if !goes_on { return Ok(()) },
                // A listener that does not listen holds up nobody else.
                () = &mut wanted => return Ok(()),
            }
        }
        if decoded == 0 {
            let reason = "the stream brought no token".to_owned();
            return Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into());
        }
        Ok(())
    }

    /// Has a proposal verified and commits what comes of it.
    async fn speculate(&mut self, proposal: &Proposal, turn: &Turn) -> Result<(), RolloutError> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let Plan { strategy, row_length } = controller::plan(
            &settings.policy,
            &settings.capabilities,
            self.sampling.as_ref().filter(|_| !self.terms.constraints.shape_sampling()),
            self.terms.logprobs,
            self.sequence.tokens().len(),
        );
        let timer = Timer::start();
        let round = Round { terms: &self.terms, context: self.sequence.tokens(), proposal, row_length };
        let metrics = &settings.metrics.speculation;
        let evidence = match shared.verifier(strategy).verify(round).await {
            Ok(evidence) => evidence,
            Err(error) if error.is_transient() || matches!(error, UpstreamError::Aborted) => return Err(error.into()),
            // The server will not verify, which says nothing of the draft: the rest is decoded plainly.
            Err(error) => {
                metrics.verify_refused(strategy.name());
                tracing::warn!(strategy = strategy.name(), %error, "verification refused, decoding plainly");
                self.drafters.clear();
                return Ok(());
            }
        };
        metrics.verified(strategy.name(), timer);
        metrics.lost_rows.inc_by(evidence.lost_rows as u64);
        metrics.recomputed.inc_by(evidence.recomputed as u64);
        let version = self.version(evidence.version.as_deref(), turn);
        // A version that the server is known to have gone back to is no longer an older one.
        if version != *turn.version() && self.versions.has_left(&version) {
            settings.metrics.control.stale_rounds.inc();
            return Ok(());
        }
        let accepted = self.accept(proposal, &evidence, &version).await?;
        metrics.round(proposal.drafts.len(), accepted);
        Ok(())
    }

    /// Commits the accepted drafts and the token after them; returns how many drafts were accepted.
    async fn accept(
        &mut self,
        proposal: &Proposal,
        evidence: &Evidence,
        version: &Arc<str>,
    ) -> Result<usize, RolloutError> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        // Without known sampling parameters every observation is a sample, for which they do not matter.
        let sampling = self.sampling.unwrap_or(Sampling::greedy());
        let mut at = 0;
        loop {
            let walked = walk(proposal, &evidence.observations, at, &sampling, settings.rule.as_ref(), &mut self.rng);
            for scored in walked.kept {
                at += 1;
                if self.commit(scored, version)? {
                    return Ok(at);
                }
            }
            match walked.next {
                Next::Bonus => {
                    self.commit(evidence.bonus.clone(), version)?;
                    return Ok(at);
                }
                Next::Token(scored) => {
                    self.commit(scored, version)?;
                    return Ok(at);
                }
                Next::Outside => {
                    let (draft, observation) = (&proposal.drafts[at], &evidence.observations[at]);
                    let (scored, drawn_under) = self.draw_outside(draft, observation).await?;
                    if self.is_stray(drawn_under, version) {
                        return Ok(at);
                    }
                    self.commit(scored, version)?;
                    return Ok(at);
                }
                Next::Sample => {
                    settings.metrics.speculation.unknown_rows.inc();
                    let (scored, told) = shared.sampler.sample(&self.terms, self.sequence.tokens()).await?;
                    if self.is_stray(told, version) {
                        return Ok(at);
                    }
                    let agrees = scored.token == proposal.drafts[at].token;
                    if self.commit(scored, version)? || !agrees {
                        return Ok(at + usize::from(agrees));
                    }
                    at += 1;
                }
            }
        }
    }

    /// Whether a token was drawn under another version than the rows of its step.
    fn is_stray(&self, told: Option<String>, version: &str) -> bool {
        let Some(other) = told.filter(|other| *other != version) else { return false };
        let settings = &self.shared.settings;
        settings.control.observe_version(&other);
        settings.metrics.control.stale_rounds.inc();
        true
    }

    /// The token of a position whose residual was found to lie in the tail of its row.
    async fn draw_outside(&mut self, draft: &Draft, observation: &Observation) -> Result<Drawn, RolloutError> {
        let settings = &self.shared.settings;
        let Observation::Row(row) = observation else {
            return Ok(self.shared.sampler.sample(&self.terms, self.sequence.tokens()).await?);
        };
        let mut row = row.clone();
        let mut leaks = 0;
        while leaks < MOST_LEAKS {
            settings.metrics.speculation.tail_samples.inc();
            let banned: Vec<_> = row.entries().iter().map(|entry| entry.token).collect();
            let (drawn, version) =
                self.shared.sampler.sample_outside(&self.terms, self.sequence.tokens(), &banned).await?;
            leaks += usize::from(banned.contains(&drawn.token));
            match judge_tail(draft, &mut row, &drawn, settings.rule.as_ref(), &mut self.rng) {
                TailVerdict::Keep => return Ok((drawn, version)),
                TailVerdict::Token(scored) => return Ok((scored, version)),
                TailVerdict::Again => {}
            }
        }
        let reason = format!("{MOST_LEAKS} tokens came from the banned ids");
        Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into())
    }
}
