//! Speculation: a proposal, what the server says of it, and what is committed of both.

use std::sync::Arc;

use tracing::{Instrument, Span};

use super::control::Turn;
use super::controller::{Costs, Judged, Measurement, Plan, Tails, new_tokens};
use super::decide::Proposed;
use super::driver::Running;
use super::traced;
use super::types::RolloutError;
use crate::speculation::{Draft, DraftDistribution, Observation, Proposal, Row, TailVerdict, Verdict};
use crate::telemetry::Timer;
use crate::upstream::UpstreamError;
use crate::verify::{Drawn, Evidence, Prefill, Round};

/// How many times the server may answer the draws from a position's tail with a token it was told not to draw.
const MOST_LEAKS: usize = 64;

/// How far a proposal got.
struct Outcome {
    /// Drafts kept.
    accepted: usize,
    /// Whether the one after them was judged and not kept.
    rejected: bool,
    /// What the rows of those told of how long a row must be.
    tails: Tails,
}

impl Running {
    /// Has a proposal, which is staged, verified and commits what comes of it, which `span` is told.
    pub(super) async fn speculate(
        &mut self,
        proposed: &Proposed,
        turn: &Turn,
        span: &Span,
    ) -> Result<(), RolloutError> {
        let Proposed { drafter, ref proposal, drafting, foreseen, ref under } = *proposed;
        if under.as_ref().is_some_and(|under| under != turn.version()) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let metrics = &settings.metrics.speculation;
        let Plan { strategy, row_length } = self.plan();
        let (start, has_old) = (self.sequence.tokens().len(), self.drafters.drawn_number().is_some());
        let tokens = self.sequence.staged();
        let written = self.sequence.written();
        let round = Round { terms: &self.terms, tokens, start, written, proposal, row_length };
        let (timer, before, started) =
            (Timer::start(), self.pace.monitor.company(), self.pace.monitor.load().started());
        let present = self.pace.monitor.at_server();
        let verifying = traced::verification(strategy.name());
        let evidence = match shared.verifier(strategy).verify(round).instrument(verifying.clone()).await {
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
        drop(present);
        traced::note(&verifying, "lost_rows", evidence.lost_rows);
        traced::note(&verifying, "recomputed", evidence.recomputed);
        drop(verifying);
        let verification = timer.seconds();
        metrics.verified(strategy.name(), timer);
        metrics.lost_rows.inc_by(evidence.lost_rows as u64);
        metrics.recomputed.inc_by(evidence.recomputed as u64);
        if proposal.drafts.iter().any(|draft| matches!(draft.q, DraftDistribution::Partial(_))) {
            metrics.judged_by_classes(evidence.given_ids);
        }
        let costs = self.pace.monitor.costs();
        let company = before.busier(self.pace.monitor.company());
        let is_typical = self.pace.monitor.load().was_typical(started);
        // What the rest of an old rollout is must not be guessed from how long the server took with it.
        let withhold = under.is_some();
        if evidence.lost_rows == 0 && is_typical {
            let new_tokens = new_tokens(strategy, start, proposal.drafts.len(), costs.block_size);
            self.pace.monitor.load().worked(costs.work(strategy, company.requests(), new_tokens));
            let (elsewhere, seconds) = (drafting, verification);
            self.pace.report(Measurement::Verified { strategy, company, new_tokens, elsewhere, seconds }, withhold);
        }
        let version = self.version(evidence.version.as_deref(), turn);
        // A version that the server is known to have gone back to is no longer an older one. Under another version an old
        // rollout may serve another.
        let is_foreign = under.as_ref().is_some_and(|under| *under != version);
        if is_foreign || (version != *turn.version() && self.versions.has_left(&version)) {
            settings.metrics.control.stale_rounds.inc();
            return Ok(());
        }
        if self.sequence.committed() == 0 {
            self.prefill = Some(self.prefill_of(&evidence, start));
        }
        let outcome = self.accept(proposal, evidence, &version).await?;
        self.judged(&costs, drafter, proposal, &outcome);
        let greedy = self.is_greedy();
        self.pace.report(Measurement::Extra { greedy, seconds: timer.seconds() - verification }, withhold);
        let tokens = (self.sequence.tokens().len() - start).max(1);
        if let Some(best) = foreseen.filter(|_| is_typical) {
            // How long a round takes where all speculate is nothing for one among many that decode to be compared with.
            let is_timed = !withhold && company.speculating >= company.decoding;
            let foreseen = if is_timed { best.rate() * (drafting + timer.seconds()) } else { best.tokens };
            self.pace.report(Measurement::Round { drafter, company, tokens, foreseen }, false);
        }
        if let Some(beside) = self.pace.monitor.load().beside().filter(|_| is_typical && has_old) {
            // Where all was kept, all that was sent was judged.
            let is_told = !withhold || outcome.accepted == proposal.drafts.len();
            let seconds = is_told.then_some(drafting + verification);
            self.pace.goes_together = true;
            self.pace.report(Measurement::Together { load: company.requests(), beside, tokens, seconds }, false);
        }
        traced::note(span, "accepted", outcome.accepted);
        traced::note(span, "tokens", self.sequence.tokens().len() - start);
        metrics.round(self.drafters.name(drafter), proposal.drafts.len(), outcome.accepted);
        Ok(())
    }

    /// What the first call tells of a prompt of so many tokens where it verified drafts. The server never takes all of a
    /// prompt from its cache.
    fn prefill_of(&self, evidence: &Evidence, prompt: usize) -> Prefill {
        let cached_tokens = evidence.cached_tokens.map(|cached| cached.min(prompt.saturating_sub(1)));
        let fingerprint = self.shared.fingerprint(evidence.fingerprint.clone());
        let model = evidence.model.clone().or_else(|| self.terms.origin.model.clone());
        Prefill { cached_tokens, fingerprint, model, prompt_logprobs: None }
    }

    /// Takes in what became of the drafts.
    fn judged(&mut self, costs: &Costs, drafter: usize, proposal: &Proposal, outcome: &Outcome) {
        let judged = outcome.accepted + usize::from(outcome.rejected);
        let drafts = proposal.drafts.iter().take(judged).enumerate().map(|(position, draft)| Judged {
            position,
            confidence: draft.confidence,
            accepted: position < outcome.accepted,
        });
        self.pace.judged(drafter, drafts.collect(), costs);
        if self.sampling.is_some_and(|sampling| sampling.is_raw()) {
            self.pace.monitor.report(Measurement::Tail(outcome.tails));
        }
    }

    /// Commits the accepted drafts and the token after them.
    async fn accept(
        &mut self,
        proposal: &Proposal,
        evidence: Evidence,
        version: &Arc<str>,
    ) -> Result<Outcome, RolloutError> {
        let shared = Arc::clone(&self.shared);
        let metrics = &shared.settings.metrics.speculation;
        let is_raw = self.sampling.is_some_and(|sampling| sampling.is_raw());
        let mut outcome = Outcome { accepted: 0, rejected: false, tails: Tails::default() };
        for (draft, observation) in proposal.drafts.iter().zip(evidence.observations) {
            if let (Observation::Row(row), true) = (&observation, is_raw) {
                outcome.tails.observe(row.top().iter().map(|entry| entry.logprob.exp()));
            }
            let is_over = match self.judge.draft(draft, observation, &mut self.rng) {
                Verdict::Keep(scored) => {
                    outcome.accepted += 1;
                    self.commit(scored, version)?
                }
                Verdict::Token(scored) => {
                    outcome.rejected = true;
                    self.commit(scored, version)?;
                    true
                }
                Verdict::Outside(row) => {
                    outcome.rejected = true;
                    let top = row.top().to_vec();
                    let (scored, drawn_under) = self.draw_outside(draft, row).await?;
                    if !self.is_stray(drawn_under, version) {
                        self.commit_outside(scored, &top, version)?;
                    }
                    true
                }
                Verdict::Sample => {
                    metrics.unknown_rows.inc();
                    let (scored, told) = shared.sampler.sample(&self.terms, self.sequence.context()).await?;
                    if self.is_stray(told, version) {
                        return Ok(outcome);
                    }
                    let agrees = scored.token == draft.token;
                    outcome.accepted += usize::from(agrees);
                    outcome.rejected = !agrees;
                    self.commit(scored, version)? || !agrees
                }
            };
            if is_over {
                return Ok(outcome);
            }
        }
        self.commit(evidence.bonus, version)?;
        Ok(outcome)
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
    async fn draw_outside(&mut self, draft: &Draft, mut row: Row) -> Result<Drawn, RolloutError> {
        let settings = &self.shared.settings;
        let mut leaks = 0;
        while leaks < MOST_LEAKS {
            settings.metrics.speculation.tail_samples.inc();
            let banned: Vec<_> = row.entries().iter().map(|entry| entry.token).collect();
            let (drawn, version) =
                self.shared.sampler.sample_outside(&self.terms, self.sequence.context(), &banned).await?;
            leaks += usize::from(banned.contains(&drawn.token));
            match self.judge.tail(draft, &mut row, &drawn, &mut self.rng) {
                TailVerdict::Keep => return Ok((drawn, version)),
                TailVerdict::Token(scored) => return Ok((scored, version)),
                TailVerdict::Again => {}
            }
        }
        let reason = format!("{MOST_LEAKS} tokens came from the banned ids");
        Err(UpstreamError::Protocol { path: "/v1/completions", reason }.into())
    }
}
