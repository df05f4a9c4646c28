//! One rollout under way: step after step until it is over.
//!
//! A step is either a decode stream ([`super::decode`]) or a proposal and its verification ([`super::speculate`]).

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::control::{Member, Turn};
use super::controller::{Bet, Choice, Mode, Plan, Policy, Reason, Situation, Speculate, choose, plan};
use super::drafters::Drafters;
use super::engine::Shared;
use super::pace::Pace;
use super::sequence::Sequence;
use super::types::{Delta, Rollout, RolloutError};
use super::versions::Versions;
use crate::draft::{DraftRequest, StopRule};
use crate::speculation::{Proposal, Sampling, Scored, TokenId};
use crate::upstream::UpstreamError;
use crate::verify::{Drawn, Prefill, Terms};

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
    pub(super) shared: Arc<Shared>,
    pub(super) member: Member,
    pub(super) terms: Terms,
    pub(super) sampling: Option<Sampling>,
    pub(super) sequence: Sequence,
    pub(super) versions: Versions,
    pub(super) drafters: Drafters,
    pub(super) rng: StdRng,
    pub(super) pace: Pace,
    /// Ids that end the rollout: nothing is worth drafting after them.
    ends: Vec<TokenId>,
    name: Arc<str>,
    /// Committed since the last delta.
    fresh: Vec<Scored>,
    pub(super) prefill: Option<Prefill>,
    /// A decision that was made while decoding, and what the drafters had ready then.
    pub(super) decided: Option<Decision>,
    events: mpsc::Sender<Result<Delta, RolloutError>>,
    _counted: Counted,
}

/// A choice with the proposals that were made for it.
pub(super) struct Decision {
    pub(super) choice: Choice,
    pub(super) ready: Vec<(usize, Proposal)>,
}

/// What to do next.
enum Step {
    /// Decode up to so many tokens, and think again after `at_least`.
    Decode { length: usize, at_least: usize },
    /// Have a drafter's proposal verified.
    Speculate { drafter: usize, proposal: Proposal, drafting: f64 },
}

impl Running {
    pub(super) fn new(
        shared: Arc<Shared>,
        rollout: Rollout,
        events: mpsc::Sender<Result<Delta, RolloutError>>,
    ) -> Self {
        let settings = &shared.settings;
        let tokenizer = settings.tokenizer.clone();
        let rules = &rollout.rules;
        let model_ends = rules.end_tokens.keys().filter(|_| !rules.ignore_eos);
        Self {
            member: settings.control.enter(Arc::clone(&rollout.id)),
            pace: Pace::new(shared.monitor.clone(), &rollout.prompt),
            ends: model_ends.chain(&rules.stop_token_ids).copied().collect(),
            name: rollout.id,
            terms: rollout.terms,
            sampling: rollout.sampling,
            sequence: Sequence::new(rollout.prompt, rollout.rules, tokenizer, rollout.text),
            versions: Versions::default(),
            drafters: Drafters::new(settings.drafters.as_ref(), settings.metrics.draft.clone()),
            rng: StdRng::from_os_rng(),
            fresh: Vec::new(),
            prefill: None,
            decided: None,
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

    /// Goes on from its first token, or from its prompt, to its end.
    pub(super) async fn run(mut self, first: Option<(Drawn, Prefill)>) {
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
            let turn = self.member.turn().await;
            let broken = turn.broken();
            let step = async {
                match step {
                    Step::Decode { length, at_least } => self.decode(length, at_least, &turn).await,
                    Step::Speculate { drafter, proposal, drafting } => {
                        self.speculate(drafter, &proposal, drafting, &turn).await
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

    /// Tells the listener what is new; `true` while the rollout goes on and somebody listens. Nothing is lost where
    /// this is left off while it waits for a slow listener.
    pub(super) async fn flush(&mut self) -> bool {
        let over = self.sequence.finish().is_some();
        if self.fresh.is_empty() && !over {
            return true;
        }
        let Ok(listener) = self.events.reserve().await else { return false };
        self.pace.monitor.load().committed(self.fresh.len());
        listener.send(Ok(Delta {
            tokens: std::mem::take(&mut self.fresh),
            text: self.sequence.take_text(),
            finish: self.sequence.finish().cloned(),
            prefill: self.prefill.take(),
            versions: over.then(|| self.versions.spans(self.sequence.committed())),
        }));
        !over
    }

    fn policy(&self) -> &Policy {
        &self.shared.settings.policy
    }

    /// Most drafts that a proposal may have: verification brings a token more, and all positions of a round are under the
    /// same constraints.
    fn draft_room(&self) -> usize {
        let room = self.sequence.room().saturating_sub(1);
        match self.sequence.barred() {
            0 => room,
            barred => room.min(barred - 1),
        }
    }

    /// How long a decode stream may be: where a few more tokens are under other constraints than the rest, those come first.
    fn decode_room(&self) -> usize {
        match self.sequence.barred() {
            0 => self.sequence.room(),
            barred => self.sequence.room().min(barred),
        }
    }

    /// How a proposal would be verified now.
    pub(super) fn plan(&self) -> Plan {
        let settings = &self.shared.settings;
        plan(
            &settings.policy,
            &settings.capabilities,
            self.sampling.as_ref().filter(|_| !self.terms.constraints.shape_sampling()),
            self.terms.logprobs,
            self.sequence.tokens().len(),
            &self.pace.monitor.costs().tails,
        )
    }

    pub(super) fn is_greedy(&self) -> bool {
        self.sampling.is_some_and(|sampling| sampling.is_greedy())
    }

    /// Decides by what was measured how to go on, and lets the drafters that cost nothing make their proposals for it.
    pub(super) async fn consider(&mut self) -> Decision {
        let room = self.draft_room();
        let committed = self.sequence.committed();
        let mut ready = Vec::new();
        let mut numbers = Vec::new();
        for (number, is_free) in self.drafters.numbers().collect::<Vec<_>>() {
            if is_free && room > 0 {
                let length = room.min(self.policy().longest_match);
                ready.push((number, self.draft(number, length, StopRule::never()).await));
            }
            numbers.push((number, is_free));
        }
        let costs = self.pace.monitor.costs();
        let proposal_of = |number| ready.iter().find(|(of, _)| *of == number).map(|(_, proposal)| proposal);
        let candidates: Vec<_> = numbers
            .into_iter()
            .filter_map(|(number, is_free)| {
                // One whose proposals are free and who has none is none.
                let proposal = if is_free { Some(proposal_of(number)?) } else { None };
                if proposal.is_some_and(|proposal| proposal.drafts.is_empty()) {
                    return None;
                }
                self.pace.candidate(number, proposal, committed)
            })
            .collect();
        let load = self.pace.monitor.load();
        let choice = choose(&Situation {
            policy: self.policy(),
            costs: &costs,
            plan: self.plan(),
            greedy: self.is_greedy(),
            rollouts: load.rollouts(),
            context: self.sequence.tokens().len(),
            room,
            candidates: &candidates,
            mode: self.pace.mode(),
            allowance: load.allowance(),
        });
        Decision { choice, ready }
    }

    /// Whether the rollout should begin as a decode stream.
    pub(super) async fn begins_decoding(&mut self) -> bool {
        match self.policy().speculate {
            Speculate::Always => false,
            Speculate::Never => true,
            Speculate::Auto => {
                let decision = self.consider().await;
                let decodes = decision.choice.mode() == Mode::Decode;
                self.decided = Some(decision).filter(|_| decodes);
                decodes
            }
        }
    }

    /// A drafter's proposal after the committed tokens.
    async fn draft(&mut self, number: usize, length: usize, stop: StopRule) -> Proposal {
        let Self { drafters, sequence, sampling, ends, .. } = self;
        let request = DraftRequest {
            context: sequence.tokens(),
            length,
            temperature: sampling.map_or(1.0, |sampling| sampling.temperature()),
            top_k: sampling.and_then(|sampling| sampling.top_k()),
            stop,
            ends,
        };
        let mut proposal = drafters.propose_by(number, request).await;
        proposal.drafts.truncate(length);
        proposal
    }

    async fn next_step(&mut self) -> Step {
        if self.policy().speculate == Speculate::Always {
            return self.speculate_always().await;
        }
        let decision = match self.decided.take() {
            Some(decision) => decision,
            None => self.consider().await,
        };
        self.step_of(decision).await
    }

    async fn step_of(&mut self, Decision { choice, ready }: Decision) -> Step {
        let bet = choice.bet.filter(|bet| bet.stake == 0.0 || self.pace.monitor.load().spend(bet.stake));
        let Some(bet) = bet else {
            self.enter(&Choice { bet: None, ..choice }, choice.reason);
            return Step::Decode { length: self.decode_room(), at_least: choice.at_least };
        };
        let started = tokio::time::Instant::now();
        let (proposal, is_ready) = match ready.into_iter().find(|(number, _)| *number == bet.drafter) {
            Some((_, mut proposal)) => {
                proposal.drafts.truncate(bet.length);
                (proposal, true)
            }
            None => (self.draft(bet.drafter, bet.length, bet.stop).await, false),
        };
        if proposal.drafts.is_empty() {
            self.pace.had_none(bet.drafter, self.sequence.committed());
            self.enter(&Choice { bet: None, ..choice }, Reason::NoDraft);
            return Step::Decode { length: self.decode_room(), at_least: choice.at_least };
        }
        let drafting = started.elapsed().as_secs_f64();
        if !is_ready {
            self.pace.drafted(bet.drafter, proposal.drafts.len(), drafting);
            self.draft_ahead(bet, &proposal);
        }
        self.enter(&choice, choice.reason);
        Step::Speculate { drafter: bet.drafter, proposal, drafting }
    }

    /// While the server verifies, the drafter goes on: if all is kept and the token after it is the one drafted, that work is
    /// the next proposal's beginning.
    fn draft_ahead(&mut self, bet: Bet, proposal: &Proposal) {
        self.sequence.stage(proposal.tokens());
        // Nothing comes after an end.
        if proposal.drafts.last().is_some_and(|last| self.ends.contains(&last.token)) {
            return;
        }
        let length = (bet.length + 1).min(self.draft_room().saturating_sub(proposal.drafts.len()));
        if length < 2 {
            return;
        }
        let Self { drafters, sequence, sampling, ends, .. } = self;
        let request = DraftRequest {
            context: sequence.staged(),
            length,
            temperature: sampling.map_or(1.0, |sampling| sampling.temperature()),
            top_k: sampling.and_then(|sampling| sampling.top_k()),
            stop: bet.stop,
            ends,
        };
        drafters.draft_ahead(bet.drafter, request);
    }

    /// The first drafter's proposal that there is, as long as may be; a burst of decoding if there is none.
    async fn speculate_always(&mut self) -> Step {
        let Policy { draft_tokens, decode_burst, .. } = *self.policy();
        let length = draft_tokens.min(self.draft_room());
        let proposal = if length > 0 {
            let Self { drafters, sequence, sampling, ends, .. } = self;
            let request = DraftRequest {
                context: sequence.tokens(),
                length,
                temperature: sampling.map_or(1.0, |sampling| sampling.temperature()),
                top_k: sampling.and_then(|sampling| sampling.top_k()),
                stop: StopRule::never(),
                ends,
            };
            drafters.propose(request).await
        } else {
            None
        };
        let decode =
            Choice { bet: None, reason: Reason::NoDraft, at_least: usize::MAX, decode_rate: None, bet_rate: None };
        let Some((drafter, mut proposal)) = proposal else {
            self.enter(&decode, Reason::NoDraft);
            let room = self.decode_room();
            let length = if self.drafters.is_empty() { room } else { room.min(decode_burst) };
            return Step::Decode { length, at_least: usize::MAX };
        };
        proposal.drafts.truncate(length);
        let bet = Some(Bet { drafter, length, stop: StopRule::never(), stake: 0.0 });
        self.enter(&Choice { bet, ..decode }, Reason::Told);
        Step::Speculate { drafter, proposal, drafting: 0.0 }
    }

    fn enter(&mut self, choice: &Choice, reason: Reason) {
        let told = self.policy().explain.then(|| Arc::clone(&self.name));
        self.pace.enter(choice, reason, &self.shared.settings.metrics.speculation, told.as_deref());
    }
}
