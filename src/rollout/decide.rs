//! Deciding how a rollout goes on, and having the drafts made for it.

use std::sync::Arc;

use super::controller::{
    Best, Bet, Candidate, Choice, Mode, Plan, Policy, Reason, Situation, Speculate, TO_REVIEW, choose, is_crowd, plan,
};
use super::drafters::Supply;
use super::driver::Running;
use crate::draft::{DraftRequest, StopRule};
use crate::speculation::{Proposal, Sampling, TokenId};
use crate::telemetry::Timer;
use crate::verify::Strategy;

/// A choice with the proposals that were made for it.
pub(super) struct Decision {
    pub(super) choice: Choice,
    pub(super) ready: Vec<(usize, Proposal)>,
}

/// What to do next.
pub(super) enum Step {
    /// Decode up to so many tokens, and think again after `at_least`.
    Decode { length: usize, at_least: usize },
    /// Have a proposal verified, which is staged.
    Speculate(Proposed),
}

/// A proposal that was made.
pub(super) struct Proposed {
    /// By whom.
    pub(super) drafter: usize,
    pub(super) proposal: Proposal,
    /// Seconds that it took.
    pub(super) drafting: f64,
    /// What was expected of its round, where that was asked.
    pub(super) foreseen: Option<Best>,
    /// The policy version under which alone it may be judged, if it matters.
    pub(super) under: Option<Arc<str>>,
}

/// What a drafter is to know of a rollout with these `ends`.
fn request<'a>(
    context: &'a [TokenId],
    sampling: Option<Sampling>,
    ends: &'a [TokenId],
    length: usize,
    stop: StopRule,
) -> DraftRequest<'a> {
    let temperature = sampling.map_or(1.0, |sampling| sampling.temperature());
    let top_k = sampling.and_then(|sampling| sampling.top_k());
    DraftRequest { context, length, temperature, top_k, stop, ends }
}

impl Running {
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
            self.terms.companions(),
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
        let mut ready = Vec::new();
        let mut unseen = Vec::new();
        let mut veiled = None;
        let Policy { draft_tokens, longest_match, longest_replay, .. } = *self.policy();
        let version = self.shared.settings.control.version();
        for (number, supply) in self.drafters.standing(self.sequence.tokens(), &version) {
            match supply {
                Supply::Made => unseen.push((number, None, draft_tokens)),
                Supply::Drawn => unseen.push((number, None, longest_replay)),
                Supply::Veiled => {
                    veiled = Some(number);
                    unseen.push((number, None, longest_match));
                }
                Supply::Free if room > 0 => {
                    let proposal = self.draft(number, room.min(longest_match), StopRule::never()).await;
                    if !proposal.drafts.is_empty() {
                        ready.push((number, proposal));
                    }
                }
                Supply::Free => {}
            }
        }
        let drawn = self.drafters.drawn_number();
        if drawn.is_none() {
            self.pace.tell_withheld();
        }
        let (committed, context) = (self.sequence.committed(), self.sequence.tokens().len());
        let free = ready.iter().map(|(number, proposal)| (*number, Some(proposal), longest_match));
        let candidates = unseen.into_iter().chain(free).filter_map(|(number, ready, longest)| {
            let candidate = self.pace.candidate(number, ready, longest, committed, context)?;
            let is_hidden = [drawn, veiled].contains(&Some(number));
            let is_veiled = veiled == Some(number);
            Some(if is_hidden { Candidate { unread: 0, is_at_hand: true, is_veiled, ..candidate } } else { candidate })
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let load = self.pace.monitor.load();
        let mut choice = choose(&Situation {
            policy: self.policy(),
            costs: &self.pace.monitor.costs(),
            plan: self.plan(),
            greedy: self.is_greedy(),
            rollouts: load.rollouts(),
            speculating: load.speculating(),
            undecided: load.undecided(),
            committed,
            context,
            room,
            candidates: &candidates,
            mode: self.pace.mode(),
            allowance: load.allowance.left(),
            joint_allowance: load.joint_allowance.left(),
        });
        // Rollouts that have parted go on beside each other as long as that is the fastest way. What is only tried says nothing
        // of that.
        let is_for_good = !matches!(choice.reason, Reason::Unmeasured | Reason::Stale | Reason::Explore);
        if is_for_good && self.drafters.has_parted() && choice.bet.is_none_or(|bet| Some(bet.drafter) != drawn) {
            self.drafters.end_replay();
        }
        // Who has no idea now may have one later: the text goes on, and others of the group go on, too.
        if choice.reason == Reason::NoDraft && !self.drafters.is_empty() {
            choice.at_least = choice.at_least.min(TO_REVIEW);
        }
        Decision { choice, ready }
    }

    /// The choice by which the rollout should begin by decoding, if it should.
    pub(super) async fn begins_decoding(&mut self) -> Option<Choice> {
        if self.policy().speculate == Speculate::Always {
            return None;
        }
        let choice = self.consider().await.choice;
        (choice.mode() == Mode::Decode).then_some(choice)
    }

    /// Whether the rollout should begin with an old one's tokens. If so, that is its first step.
    pub(super) async fn begins_by_replay(&mut self) -> bool {
        if self.plan().strategy == Strategy::FanOut || self.draft_room() == 0 {
            return false;
        }
        let version = self.shared.settings.control.version();
        self.drafters.standing(self.sequence.tokens(), &version);
        let drawn = self.drafters.drawn_number();
        match self.policy().speculate {
            Speculate::Never => return false,
            Speculate::Always => return drawn.is_some(),
            Speculate::Auto if drawn.is_none() => return false,
            Speculate::Auto => {}
        }
        let decision = self.consider().await;
        let replays = decision.choice.bet.is_some_and(|bet| drawn == Some(bet.drafter));
        if replays {
            self.decided = Some(decision);
        }
        replays
    }

    /// Makes `choice` the first step's.
    pub(super) fn begin_as(&mut self, choice: Choice) {
        self.decided = Some(Decision { choice, ready: Vec::new() });
    }

    /// A drafter's proposal after the committed tokens.
    async fn draft(&mut self, number: usize, length: usize, stop: StopRule) -> Proposal {
        let Self { drafters, sequence, sampling, ends, .. } = self;
        let mut proposal = drafters.propose_by(number, request(sequence.tokens(), *sampling, ends, length, stop)).await;
        proposal.drafts.truncate(length);
        proposal
    }

    pub(super) async fn next_step(&mut self) -> Step {
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
        let bet = choice.bet.filter(|bet| self.may(bet, choice.reason));
        let Some(bet) = bet else { return self.decode_as(choice, choice.reason) };
        let made = ready.into_iter().find(|(number, _)| *number == bet.drafter);
        let is_ready = made.is_some();
        let (mut proposal, drafting) = match made {
            Some((_, proposal)) => (proposal, 0.0),
            None => self.draft_timed(bet).await,
        };
        proposal.drafts.truncate(bet.length);
        if proposal.drafts.is_empty() {
            // One that costs nothing may be asked again at once.
            if !self.drafters.is_free(bet.drafter) {
                self.pace.had_none(bet.drafter, self.sequence.committed());
            }
            return self.decode_as(choice, Reason::NoDraft);
        }
        self.sequence.stage(proposal.tokens());
        if !is_ready {
            self.draft_ahead(bet, &proposal);
        }
        self.enter(&choice, choice.reason);
        let under = self.drafters.version(bet.drafter);
        Step::Speculate(Proposed { drafter: bet.drafter, proposal, drafting, foreseen: bet.foreseen, under })
    }

    /// Whether a bet may be made: one that is expected to lose is paid for.
    fn may(&self, bet: &Bet, reason: Reason) -> bool {
        if reason == Reason::Together {
            return self.pace.monitor.load().joint_allowance.spend(bet.stake);
        }
        let (allowance, crowded) = (&self.pace.monitor.load().allowance, self.pace.monitor.is_crowded());
        if bet.stake > 0.0 {
            return allowance.spend(bet.stake, crowded);
        }
        allowance.pays(crowded);
        true
    }

    /// A proposal for `bet`, and the seconds that it took, which are reported.
    async fn draft_timed(&mut self, bet: Bet) -> (Proposal, f64) {
        let monitor = self.pace.monitor.clone();
        let _drafting = monitor.drafting();
        let (timer, before) = (Timer::start(), monitor.load().drawing_on_drafters());
        let proposal = self.draft(bet.drafter, bet.length, bet.stop).await;
        let seconds = timer.seconds();
        let company = before.max(monitor.load().drawing_on_drafters());
        let context = self.sequence.tokens().len();
        if !proposal.drafts.is_empty() {
            self.pace.drafted(bet.drafter, context, proposal.drafts.len(), seconds, company);
        }
        (proposal, seconds)
    }

    /// Decodes after all, or because that was the choice.
    fn decode_as(&mut self, choice: Choice, reason: Reason) -> Step {
        self.enter(&Choice { bet: None, ..choice }, reason);
        Step::Decode { length: self.decode_room(), at_least: choice.at_least }
    }

    /// While the server verifies the staged drafts, the drafter goes on: if all is kept and the token after it is the one
    /// drafted, that work is the next proposal's beginning.
    fn draft_ahead(&mut self, bet: Bet, proposal: &Proposal) {
        // Nothing comes after an end. Where many speculate, those whose next draft is there already would fall out of step with
        // the others, and verifications that do not share a step of the server make each other wait.
        if is_crowd(self.pace.monitor.load().speculating())
            || proposal.drafts.last().is_some_and(|last| self.ends.contains(&last.token))
        {
            return;
        }
        let length = (bet.length + 1).min(self.draft_room().saturating_sub(proposal.drafts.len()));
        if length < 2 {
            return;
        }
        let Self { drafters, sequence, sampling, ends, .. } = self;
        drafters.draft_ahead(bet.drafter, request(sequence.staged(), *sampling, ends, length, bet.stop));
    }

    /// The first drafter's proposal that there is, as long as may be; a burst of decoding if there is none.
    async fn speculate_always(&mut self) -> Step {
        let Policy { draft_tokens, decode_burst, .. } = *self.policy();
        let length = draft_tokens.min(self.draft_room());
        let version = self.shared.settings.control.version();
        let proposal = if length > 0 {
            let Self { drafters, sequence, sampling, ends, .. } = self;
            let request = request(sequence.tokens(), *sampling, ends, length, StopRule::never());
            drafters.propose(request, &version).await
        } else {
            None
        };
        let decode = Choice::decode(Reason::NoDraft, usize::MAX);
        let Some((drafter, mut proposal)) = proposal else {
            self.enter(&decode, Reason::NoDraft);
            let room = self.decode_room();
            let length = if self.drafters.is_empty() { room } else { room.min(decode_burst) };
            return Step::Decode { length, at_least: usize::MAX };
        };
        proposal.drafts.truncate(length);
        self.sequence.stage(proposal.tokens());
        let bet = Some(Bet { drafter, length, stop: StopRule::never(), stake: 0.0, foreseen: None });
        self.enter(&Choice { bet, ..decode }, Reason::Told);
        let under = self.drafters.version(drafter);
        Step::Speculate(Proposed { drafter, proposal, drafting: 0.0, foreseen: None, under })
    }

    fn enter(&mut self, choice: &Choice, reason: Reason) {
        let told = self.policy().explain.then(|| Arc::clone(&self.name));
        self.pace.enter(choice, reason, &self.shared.settings.metrics.speculation, told.as_deref());
    }
}
