//! The decision: which of the ways to go on is expected to bring the most tokens a second.

use super::costs::Costs;
use super::forecast::Best;
use super::offers::Offer;
use super::strategy::Plan;
use super::together::Joint;
use super::{Policy, Speculate};
use crate::draft::StopRule;
use crate::speculation::Proposal;

/// Tokens to decode before decoding counts as measured.
const TO_MEASURE: usize = 8;
/// Tokens to decode before another way is thought of again.
pub const TO_REVIEW: usize = 4;
/// How much better speculation must be to leave a decode stream, which aborts it; to begin with; and to stay.
#[derive(Debug, Clone, Copy)]
struct Margins {
    from_decode: f64,
    at_start: f64,
    to_stay: f64,
}

/// Of few rollouts, and where most speculate.
const ALONE: Margins = Margins { from_decode: 1.08, at_start: 1.03, to_stay: 0.97 };
/// In a crowd of which most decode: a few that speculate make the steps of all the others longer.
const CROWDED: Margins = Margins { from_decode: 1.25, at_start: 1.2, to_stay: 1.04 };
/// Rollouts that are not a crowd yet.
const FEW: f64 = 2.0;

/// Whether so many do not just have each their share of the server, but disturb each other by what they do.
#[must_use]
pub fn is_crowd(number: f64) -> bool {
    number > FEW
}

/// How a rollout goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The server decodes, token by token.
    Decode,
    /// Drafts are verified.
    Speculate,
}

impl Mode {
    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Speculate => "speculate",
        }
    }
}

/// Why a way was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is expected to be the fastest.
    Fastest,
    /// The operator wants it so.
    Told,
    /// No drafter has a proposal, or there is no room for one.
    NoDraft,
    /// What decoding takes at this load is not known yet.
    Unmeasured,
    /// What decoding takes has not been measured for long.
    Stale,
    /// To find out, at a cost that is made up for by tokens already won.
    Explore,
    /// The same by all of a crowd at once.
    Together,
    /// A chat began as the server's own stream, which tells its prompt, and would rather have speculated.
    Opened,
}

impl Reason {
    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fastest => "fastest",
            Self::Told => "told",
            Self::NoDraft => "no_draft",
            Self::Unmeasured => "unmeasured",
            Self::Stale => "stale",
            Self::Explore => "explore",
            Self::Together => "together",
            Self::Opened => "opened",
        }
    }
}

/// A drafter that a rollout has.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Which.
    pub drafter: usize,
    /// Rejections for each that the drafter's record foresees, in this rollout.
    pub hazard: f64,
    /// Tokens of the context that it would have to read before it could draft.
    pub unread: usize,
    /// The most drafts to ask it for.
    pub longest: usize,
    /// Whether its proposal costs nothing to make.
    pub is_at_hand: bool,
    /// Whether to ask it means to do without another one's drafts for good.
    pub is_veiled: bool,
    /// That proposal, where it may be looked at before it is decided to have it judged.
    pub ready: Option<&'a Proposal>,
}

impl Candidate<'_> {
    /// Whether it is an old rollout, whose tokens were drawn before and may not be looked at.
    #[must_use]
    pub fn is_drawn(&self) -> bool {
        self.is_at_hand && self.ready.is_none() && !self.is_veiled
    }
}

/// What a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The operator's choices.
    pub policy: &'a Policy,
    /// What was measured.
    pub costs: &'a Costs,
    /// How a proposal would be verified.
    pub plan: Plan,
    /// Whether sampling is greedy.
    pub greedy: bool,
    /// Rollouts under way here, this one included.
    pub rollouts: f64,
    /// Those of them that speculate.
    pub speculating: f64,
    /// Those that have not decided yet what to begin with, this one included where it has not.
    pub undecided: f64,
    /// Tokens of output.
    pub committed: usize,
    /// Tokens of prompt and output.
    pub context: usize,
    /// Most drafts that a proposal may have.
    pub room: usize,
    /// Who can draft.
    pub candidates: &'a [Candidate<'a>],
    /// How the rollout goes on now.
    pub mode: Option<Mode>,
    /// Tokens that may be lost to finding out.
    pub allowance: f64,
    /// Tokens that all of a crowd may lose together to finding out.
    pub joint_allowance: f64,
}

/// A proposal to ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bet {
    /// Whom.
    pub drafter: usize,
    /// How many drafts at most.
    pub length: usize,
    /// When to stop before that.
    pub stop: StopRule,
    /// Tokens expected to be lost against decoding, where it is made to find out.
    pub stake: f64,
    /// What is expected of its round, where that was asked.
    pub foreseen: Option<Best>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The proposal to make; decode if there is none.
    pub bet: Option<Bet>,
    /// Why.
    pub reason: Reason,
    /// When decoding: so many tokens are decoded before anything else is thought of.
    pub at_least: usize,
    /// When decoding: whether a drafter would pay if it had read the context already, which it can while the server decodes.
    pub prepare: bool,
    /// Tokens a second that decoding is expected to bring, where known.
    pub decode_rate: Option<f64>,
    /// Tokens a second that the best proposal is expected to bring, where there is one.
    pub bet_rate: Option<f64>,
}

impl Choice {
    /// To decode at least so many tokens, for a reason.
    #[must_use]
    pub fn decode(reason: Reason, at_least: usize) -> Self {
        Self { bet: None, reason, at_least, prepare: false, decode_rate: None, bet_rate: None }
    }

    /// Which mode it amounts to.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.bet.is_some() { Mode::Speculate } else { Mode::Decode }
    }
}

/// Decides how a rollout goes on.
#[must_use]
pub fn choose(situation: &Situation<'_>) -> Choice {
    let Situation { policy, costs, rollouts, room, candidates, .. } = *situation;
    let load = rollouts + costs.others;
    if policy.speculate == Speculate::Never {
        return Choice::decode(Reason::Told, usize::MAX);
    }
    if candidates.is_empty() {
        return Choice::decode(Reason::NoDraft, usize::MAX);
    }
    let Some(interval) = costs.interval(load).filter(|_| !costs.is_unmeasured(load)) else {
        return Choice::decode(Reason::Unmeasured, TO_MEASURE);
    };
    let decode_rate = 1.0 / interval;
    let decode = Choice { decode_rate: Some(decode_rate), ..Choice::decode(Reason::Fastest, TO_REVIEW) };
    let offers: Vec<_> = candidates.iter().filter_map(|candidate| situation.offer(candidate, load)).collect();
    let joint = situation.joint(&offers, load, decode_rate);
    let is_stale = match joint {
        Some(Joint::Begin(..)) => costs.is_stale_for_all(),
        // While others speculate nothing can be learnt of how fast decoding is where all do.
        Some(Joint::GoOn(_)) => false,
        Some(Joint::Decode) | None => costs.is_stale(),
    };
    if is_stale {
        return Choice::decode(Reason::Stale, TO_MEASURE);
    }
    let switch = situation.switching(load, decode_rate);
    // What does worse than foreseen is taken for what it does. A few of a crowd soon do again what the others do, and it is to
    // be faster both if all do the same and if the others do not.
    let worth = |offer: &Offer<'_>, rate: f64| match &offer.among {
        _ if !is_crowd(load) => rate,
        Some(among) => {
            let share = costs.come_true_among(offer.candidate.drafter);
            let alone = (offer.best.tokens * share - among.lost) / among.seconds;
            (rate * share).min(alone) - switch / offer.lasting
        }
        None => rate * costs.come_true(load),
    };
    let by_worth = |a: &&Offer<'_>, b: &&Offer<'_>| worth(a, a.rate).total_cmp(&worth(b, b.rate));
    let Some(best) = offers.iter().max_by(by_worth).filter(|_| room > 0) else {
        return Choice { reason: Reason::NoDraft, ..decode };
    };
    let margins = if situation.is_detour(load) { CROWDED } else { ALONE };
    let margin = match situation.mode {
        Some(Mode::Decode) => margins.from_decode,
        Some(Mode::Speculate) => margins.to_stay,
        None => margins.at_start,
    };
    let take = |offer: &Offer<'_>, stake, reason| Choice {
        bet: Some(situation.bet(offer, stake)),
        reason,
        bet_rate: Some(offer.rate),
        ..decode
    };
    match joint {
        Some(Joint::Begin(offer, stake)) => {
            let reason = if stake > 0.0 { Reason::Together } else { Reason::Fastest };
            return take(offer, stake, reason);
        }
        Some(Joint::GoOn(offer)) => return take(offer, 0.0, Reason::Fastest),
        Some(Joint::Decode) => return Choice { bet_rate: Some(best.rate), ..decode },
        None => {}
    }
    if worth(best, best.rate) > margin * decode_rate {
        return take(best, 0.0, Reason::Fastest);
    }
    let would_pay = |offer: &Offer<'_>| offer.reading > 0.0 && worth(offer, offer.best.rate()) > margin * decode_rate;
    let decode = Choice { prepare: offers.iter().any(would_pay), ..decode };
    // Not the best, for what looks bad may have changed since it was last tried.
    let stakes = offers.iter().map(|offer| {
        let others = situation.disturbance(offer, load) * (load - 1.0) * decode_rate;
        (offer, offer.stake(decode_rate) + switch + others)
    });
    let affordable = stakes.filter(|(offer, stake)| !offer.candidate.is_veiled && situation.allowance > *stake);
    match affordable.min_by_key(|(offer, _)| costs.last_judged(offer.candidate.drafter)) {
        Some((offer, stake)) => take(offer, stake, Reason::Explore),
        None => Choice { bet_rate: Some(best.rate), ..decode },
    }
}

#[cfg(test)]
mod tests;
