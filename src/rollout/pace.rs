//! What a rollout remembers for its decisions: how its drafts fared, what it is doing and since when.

use std::sync::Arc;

use super::controller::groups::Group;
use super::controller::monitor::{Monitor, Present};
use super::controller::{Candidate, Choice, Costs, Hazard, Judged, Measurement, Mode, Reason};
use crate::speculation::{Proposal, TokenId};
use crate::telemetry::SpeculationMetrics;

/// A drafter that had no idea is not asked again before so many tokens.
const QUIET: usize = 64;
/// Drafts of a proposal that is not sent are compared with what comes up to here.
const SHADOW: usize = 8;

/// A rollout's memory.
pub(super) struct Pace {
    pub(super) monitor: Monitor,
    group: Arc<Group>,
    hazards: Vec<Hazard>,
    /// Up to how many committed tokens each drafter is left alone.
    quiet: Vec<usize>,
    /// How much of the context the drafters were told while the server went on, and each has read with its drafts.
    prepared: usize,
    read: Vec<usize>,
    entered: Option<Mode>,
    /// The same but for what was only tried.
    mode: Option<Mode>,
    speculating: Option<Present>,
    shadow: Option<Shadow>,
    /// What verifications took whose drafts nobody may learn of but by judging them.
    withheld: Vec<Measurement>,
    /// Whether it goes by an old rollout as its crowd does.
    pub(super) goes_together: bool,
    /// And decodes by now.
    fallen: Option<Present>,
    /// Until it is decided what to begin with.
    undecided: Option<Present>,
    /// Until the first token.
    starting: Option<Present>,
    _present: Present,
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.tell_withheld();
    }
}

/// A proposal that was not sent, to see how it would have fared.
struct Shadow {
    drafter: usize,
    proposal: Proposal,
    judged: Vec<Judged>,
}

fn at(list: &mut Vec<impl Default + Clone>, drafter: usize) {
    if list.len() <= drafter {
        list.resize(drafter + 1, Default::default());
    }
}

impl Pace {
    pub(super) fn new(monitor: Monitor, prompt: &[TokenId]) -> Self {
        Self {
            group: monitor.groups.of(prompt),
            goes_together: false,
            fallen: None,
            undecided: Some(monitor.undecided()),
            starting: Some(monitor.starting()),
            _present: monitor.rollout(),
            monitor,
            hazards: Vec::new(),
            quiet: Vec::new(),
            prepared: 0,
            read: Vec::new(),
            entered: None,
            mode: None,
            speculating: None,
            shadow: None,
            withheld: Vec::new(),
        }
    }

    /// Reports a measurement, or keeps it for [`Self::tell_withheld`] where it may tell of drafts that were sent and not judged,
    /// of which others will be judged later.
    pub(super) fn report(&mut self, measurement: Measurement, withhold: bool) {
        if withhold {
            self.withheld.push(measurement);
        } else {
            self.monitor.report(measurement);
        }
    }

    /// Reports what was withheld: none of its drafts will be judged any more.
    pub(super) fn tell_withheld(&mut self) {
        self.withheld.drain(..).for_each(|measurement| self.monitor.report(measurement));
    }

    /// Notes that the first token has come.
    pub(super) fn started(&mut self) {
        if self.starting.take().is_some() {
            self.monitor.load().note_start();
        }
    }

    /// How the rollout goes on now, or did before it tried another way; absent at its start.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Notes that the drafters read a context of so many tokens while the server does.
    pub(super) fn prepared(&mut self, context: usize) {
        self.prepared = context;
    }

    /// Tokens of the context that a drafter would have to read before it could draft.
    fn unread(&self, drafter: usize, context: usize) -> usize {
        context - self.read.get(drafter).copied().unwrap_or(0).max(self.prepared).min(context)
    }

    /// A drafter as a candidate, unless it is to be left alone after so many committed tokens.
    pub(super) fn candidate<'a>(
        &self,
        drafter: usize,
        ready: Option<&'a Proposal>,
        longest: usize,
        committed: usize,
        context: usize,
    ) -> Option<Candidate<'a>> {
        if self.quiet.get(drafter).is_some_and(|until| committed < *until) {
            return None;
        }
        let hazard = self.hazards.get(drafter).copied().unwrap_or_default();
        // A prompt is read while the server reads it.
        let unread = if committed == 0 { 0 } else { self.unread(drafter, context) };
        let hazard = hazard.ratio(self.group.hazard(drafter).ratio());
        Some(Candidate { drafter, hazard, unread, longest, is_at_hand: ready.is_some(), is_veiled: false, ready })
    }

    /// Notes that a drafter had no idea.
    pub(super) fn had_none(&mut self, drafter: usize, committed: usize) {
        at(&mut self.quiet, drafter);
        self.quiet[drafter] = committed + QUIET;
    }

    /// Reports how long a proposal of `tokens` tokens after a context of so many took to make, in which company.
    pub(super) fn drafted(&mut self, drafter: usize, context: usize, tokens: usize, seconds: f64, company: f64) {
        at(&mut self.read, drafter);
        // What it was told may still have been read, for part of the time: that says nothing of either.
        let was_reading = self.prepared > self.read[drafter];
        if !was_reading {
            let unread = self.unread(drafter, context);
            self.monitor.report(Measurement::Drafted { drafter, speculating: company, unread, tokens, seconds });
        }
        self.read[drafter] = context + tokens;
    }

    /// Takes in what became of drafts, in this rollout, its group and the drafter's record.
    pub(super) fn judged(&mut self, drafter: usize, drafts: Vec<Judged>, costs: &Costs) {
        at(&mut self.hazards, drafter);
        for judged in &drafts {
            let foreseen = costs.forecast(drafter, judged.confidence, judged.position);
            self.hazards[drafter].observe(foreseen, judged.accepted);
            self.group.hazard(drafter).observe(foreseen, judged.accepted);
        }
        self.monitor.report(Measurement::Judged { drafter, drafts });
    }

    /// Keeps a proposal to compare it with the tokens that come.
    pub(super) fn keep_shadow(&mut self, drafter: usize, proposal: Proposal) {
        if self.shadow.is_none() && !proposal.drafts.is_empty() {
            self.shadow = Some(Shadow { drafter, proposal, judged: Vec::new() });
        }
    }

    /// Compares a decoded token with what was proposed in its place.
    pub(super) fn decoded(&mut self, token: TokenId) {
        let Some(shadow) = &mut self.shadow else { return };
        let position = shadow.judged.len();
        let draft = &shadow.proposal.drafts[position];
        let accepted = draft.token == token;
        shadow.judged.push(Judged { position, confidence: draft.confidence, accepted });
        if accepted && shadow.judged.len() < shadow.proposal.drafts.len().min(SHADOW) {
            return;
        }
        if let Some(Shadow { drafter, judged, .. }) = self.shadow.take() {
            let costs = self.monitor.costs();
            self.judged(drafter, judged, &costs);
        }
    }

    /// Forgets what was to be compared: the tokens that follow are no longer those of the server's stream.
    pub(super) fn drop_shadow(&mut self) {
        self.shadow = None;
    }

    /// Counts a step, and says so where it is another than before.
    pub(super) fn enter(&mut self, choice: &Choice, reason: Reason, metrics: &SpeculationMetrics, told: Option<&str>) {
        let mode = choice.mode();
        self.undecided = None;
        metrics.step(mode.name(), reason.name());
        if reason != Reason::Explore {
            self.mode = Some(mode);
        }
        if self.entered == Some(mode) {
            return;
        }
        self.fallen = (mode == Mode::Decode && self.goes_together).then(|| self.monitor.fallen());
        if self.fallen.is_some() {
            self.monitor.load().joint_allowance.note_trial();
        }
        self.speculating = (mode == Mode::Speculate).then(|| self.monitor.speculating());
        if let Some(rollout) = told {
            let load = self.monitor.load();
            tracing::info!(
                target: "sidedraft::explain",
                rollout,
                from = self.entered.map_or("start", Mode::name),
                to = mode.name(),
                reason = reason.name(),
                decode_rate = choice.decode_rate,
                speculate_rate = choice.bet_rate,
                drafts = choice.bet.map(|bet| bet.length),
                rollouts = load.rollouts(),
                others = self.monitor.costs().others,
                "switch"
            );
        }
        self.entered = Some(mode);
    }
}
