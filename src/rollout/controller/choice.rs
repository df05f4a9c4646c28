//! The decision: which of the ways to go on is expected to bring the most tokens a second.

use super::acceptance::under;
use super::costs::Costs;
use super::forecast::{Best, Company, best_length};
use super::strategy::Plan;
use super::{Policy, Speculate};
use crate::draft::{CONFIDENCE_BINS, StopRule};
use crate::speculation::Proposal;
use crate::verify::Strategy;

/// Tokens to decode before decoding counts as measured.
const TO_MEASURE: usize = 8;
/// Tokens to decode before another way is thought of again.
const TO_REVIEW: usize = 4;
/// How much better speculation must be to leave a decode stream, which aborts it; to begin with; and to stay.
#[derive(Debug, Clone, Copy)]
struct Margins {
    from_decode: f64,
    at_start: f64,
    to_stay: f64,
}

/// Of few rollouts.
const ALONE: Margins = Margins { from_decode: 1.08, at_start: 1.03, to_stay: 0.97 };
/// In a crowd, where each one's choice disturbs what the others measure, and being wrong costs all of them.
const CROWDED: Margins = Margins { from_decode: 1.2, at_start: 1.12, to_stay: 1.04 };
/// Tokens that leaving a decode stream costs: a step that is thrown away, and another request to go on.
const SWITCH: f64 = 2.0;
/// More rollouts than this are a crowd.
const CROWD: f64 = 2.0;
/// The server's block size where it does not tell: vLLM's default.
const USUAL_BLOCK: usize = 16;

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
    /// Its proposal, where making one costs nothing; an empty one says that it has no idea.
    pub ready: Option<&'a Proposal>,
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
    /// Tokens a second that decoding is expected to bring, where known.
    pub decode_rate: Option<f64>,
    /// Tokens a second that the best proposal is expected to bring, where there is one.
    pub bet_rate: Option<f64>,
}

impl Choice {
    fn decode(reason: Reason, at_least: usize) -> Self {
        Self { bet: None, reason, at_least, decode_rate: None, bet_rate: None }
    }

    /// Which mode it amounts to.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.bet.is_some() { Mode::Speculate } else { Mode::Decode }
    }
}

/// Tokens that the server computes to verify so many drafts after a context, whose full blocks are in its prefix cache.
/// The context's last token was sampled and never computed.
#[must_use]
pub fn new_tokens(strategy: Strategy, context: usize, drafts: usize, block: Option<usize>) -> f64 {
    let open = (context.max(1) - 1) % block.unwrap_or(USUAL_BLOCK).max(1) + 1;
    let tokens = match strategy {
        Strategy::CachedSuffix => open + drafts,
        Strategy::PromptLogprobs => context + drafts,
        Strategy::FanOut => (drafts + 1) * open + drafts * (drafts + 1) / 2,
    };
    tokens as f64
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
    if costs.is_stale() {
        return Choice::decode(Reason::Stale, TO_MEASURE);
    }
    let decode_rate = 1.0 / interval;
    let offers = candidates.iter().filter_map(|candidate| Some((candidate, situation.best(candidate, load)?)));
    let best = offers.max_by(|(_, a), (_, b)| a.rate().total_cmp(&b.rate()));
    let Some((candidate, best)) = best.filter(|_| room > 0) else {
        return Choice { decode_rate: Some(decode_rate), ..Choice::decode(Reason::NoDraft, TO_REVIEW) };
    };
    let margins = if load > CROWD { CROWDED } else { ALONE };
    let margin = match situation.mode {
        Some(Mode::Decode) => margins.from_decode,
        Some(Mode::Speculate) => margins.to_stay,
        None => margins.at_start,
    };
    let switch = if situation.mode == Some(Mode::Decode) { SWITCH } else { 0.0 };
    let stake = (decode_rate - best.rate()).max(0.0) * best.seconds + switch;
    // A crowd that does worse than foreseen goes by what it sees.
    let seen = costs.round_rate(load).filter(|_| load > CROWD).unwrap_or(f64::INFINITY);
    let (bet, reason) = if best.rate().min(seen) > margin * decode_rate {
        (Some(0.0), Reason::Fastest)
    } else if situation.allowance > stake {
        (Some(stake), Reason::Explore)
    } else {
        (None, Reason::Fastest)
    };
    Choice {
        bet: bet.map(|stake| situation.bet(candidate, best, stake)),
        reason,
        at_least: TO_REVIEW,
        decode_rate: Some(decode_rate),
        bet_rate: Some(best.rate()),
    }
}

impl Situation<'_> {
    /// The best that a drafter can offer.
    fn best(&self, candidate: &Candidate<'_>, load: f64) -> Option<Best> {
        let Candidate { drafter, hazard, ready } = *candidate;
        let others = self.costs.others;
        let cost = self.costs.round(self.plan.strategy, Some(drafter), self.greedy, load, others)?;
        let excess = self.costs.excess(self.plan.strategy, load);
        // A few that speculate among many that decode are quicker than all would be: that says nothing of a crowd.
        let excess = if self.rollouts > CROWD { excess.max(1.0) } else { excess };
        let company = Company { speculating: self.rollouts, decoding: others };
        let seconds = |drafts: usize| {
            let new = new_tokens(self.plan.strategy, self.context, drafts, self.costs.block_size);
            let draft = if ready.is_some() { 0.0 } else { cost.draft.of(drafts as f64) };
            let elsewhere = draft + cost.extra;
            elsewhere + excess * cost.verification(new, elsewhere, company)
        };
        let record = self.costs.record(drafter);
        match ready {
            Some(proposal) => {
                let drafts = proposal.drafts.iter().take(self.room.min(self.policy.longest_match)).enumerate();
                best_length(drafts.map(|(at, draft)| under(record.of(draft, at), hazard)), seconds)
            }
            None => {
                let positions = 0..self.room.min(self.policy.draft_tokens);
                best_length(positions.map(|at| under(record.at_position(at), hazard)), seconds)
            }
        }
    }

    fn bet(&self, candidate: &Candidate<'_>, best: Best, stake: f64) -> Bet {
        let Candidate { drafter, hazard, ready } = *candidate;
        let record = self.costs.record(drafter);
        if ready.is_none() && self.rollouts > CROWD {
            // It is worth more that proposals are of one length: then verifications share the server's steps.
            let usual = self.best(&Candidate { hazard: 1.0, ..*candidate }, self.rollouts + self.costs.others);
            let length = usual.map_or(best.length, |usual| usual.length).min(self.room);
            return Bet { drafter, length, stop: StopRule::never(), stake };
        }
        // A drafter that knows how sure it is may go on for longer than is usual, and stops by itself.
        let varies = ready.is_none() && record.knows_confidence();
        let most = if varies { 2 * best.length + 2 } else { best.length };
        let acceptance: [f32; CONFIDENCE_BINS] =
            std::array::from_fn(|bin| under(record.by_confidence(bin), hazard) as f32);
        // The rule looks at the drafts that there are; the next one's chance is the usual one.
        let least = (best.least / under(record.overall(), hazard).max(0.05)).min(1.0) as f32;
        let stop = if ready.is_some() { StopRule::never() } else { StopRule { acceptance, least } };
        Bet { drafter, length: most.min(self.room).min(self.most(ready.is_some())), stop, stake }
    }

    fn most(&self, is_ready: bool) -> usize {
        if is_ready { self.policy.longest_match } else { self.policy.draft_tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::super::acceptance::Judged;
    use super::super::costs::Measurement;
    use super::*;

    const PLAN: Plan = Plan { strategy: Strategy::CachedSuffix, row_length: 2 };

    /// A server of 6.2 ms a step, whose drafter is accepted with this probability and takes 0.6 ms a token.
    fn costs(acceptance: f64) -> Costs {
        let mut costs = Costs::new();
        for load in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] {
            costs.observe(Measurement::Decoded { load, interval: 0.0062 + 0.00003 * load, tokens: 40.0 });
        }
        for index in 0..60_u32 {
            let new_tokens = f64::from(index % 20);
            costs.observe(Measurement::Verified {
                strategy: Strategy::CachedSuffix,
                company: Company { speculating: 1.0, decoding: 0.0 },
                new_tokens,
                elsewhere: 0.0,
                seconds: 0.00743 + 0.00004 * new_tokens,
            });
            let tokens = index as usize % 8 + 1;
            costs.observe(Measurement::Drafted { drafter: 0, tokens, seconds: 0.0006 * tokens as f64 });
        }
        for index in 0..600 {
            let accepted = f64::from(index % 100) < 100.0 * acceptance;
            let drafts = vec![Judged { position: index as usize % 12, confidence: None, accepted }];
            costs.observe(Measurement::Judged { drafter: 0, drafts });
        }
        costs
    }

    fn decide(costs: &Costs, rollouts: f64, mode: Option<Mode>, allowance: f64) -> Choice {
        choose(&Situation {
            policy: &Policy::default(),
            costs,
            plan: PLAN,
            greedy: true,
            rollouts,
            context: 1000,
            room: 400,
            candidates: &[Candidate { drafter: 0, hazard: 1.0, ready: None }],
            mode,
            allowance,
        })
    }

    #[test]
    fn a_good_drafter_is_used_while_few_rollouts_run_and_not_in_a_crowd() {
        let costs = costs(0.85);
        for (rollouts, mode) in [(1.0, Mode::Speculate), (8.0, Mode::Speculate), (128.0, Mode::Decode)] {
            let choice = decide(&costs, rollouts, None, 0.0);
            assert_eq!((choice.mode(), choice.reason), (mode, Reason::Fastest), "{rollouts}: {choice:?}");
        }
    }

    #[test]
    fn a_drafter_that_is_always_wrong_is_tried_only_as_far_as_the_allowance_goes() {
        let costs = costs(0.0);
        assert_eq!(decide(&costs, 1.0, None, 0.0).mode(), Mode::Decode);
        let tried = decide(&costs, 1.0, None, 5.0);
        assert_eq!(tried.reason, Reason::Explore);
        assert!(tried.bet.unwrap().stake > 0.0);
    }

    #[test]
    fn near_the_break_even_a_rollout_stays_what_it_is() {
        let costs = costs(0.85);
        let rates = |rollouts: u32| {
            let choice = decide(&costs, f64::from(rollouts), None, 0.0);
            choice.bet_rate.unwrap() / choice.decode_rate.unwrap()
        };
        let even = (8..200).find(|rollouts| rates(*rollouts) < 1.12).unwrap();
        assert!(rates(even) > 1.04, "the rates change smoothly");
        assert_eq!(decide(&costs, f64::from(even), Some(Mode::Speculate), 0.0).mode(), Mode::Speculate);
        assert_eq!(decide(&costs, f64::from(even), Some(Mode::Decode), 0.0).mode(), Mode::Decode);
    }

    #[test]
    fn decoding_is_measured_first() {
        let choice = decide(&Costs::new(), 1.0, None, 100.0);
        assert_eq!((choice.mode(), choice.reason, choice.at_least), (Mode::Decode, Reason::Unmeasured, TO_MEASURE));
    }

    #[test]
    fn a_rollout_whose_drafts_are_rejected_more_than_others_decodes() {
        let costs = costs(0.85);
        let policy = Policy::default();
        let candidates = |hazard| [Candidate { drafter: 0, hazard, ready: None }];
        let mode = |candidates: &[Candidate<'_>]| {
            choose(&Situation {
                policy: &policy,
                costs: &costs,
                plan: PLAN,
                greedy: true,
                rollouts: 1.0,
                context: 1000,
                room: 400,
                candidates,
                mode: None,
                allowance: 0.0,
            })
            .mode()
        };
        assert_eq!(mode(&candidates(1.0)), Mode::Speculate);
        assert_eq!(mode(&candidates(6.0)), Mode::Decode);
    }

    #[test]
    fn the_server_computes_the_open_block_and_the_drafts() {
        assert_eq!(new_tokens(Strategy::CachedSuffix, 33, 4, Some(16)), 5.0);
        assert_eq!(new_tokens(Strategy::CachedSuffix, 32, 4, Some(16)), 20.0);
        assert_eq!(new_tokens(Strategy::PromptLogprobs, 32, 4, Some(16)), 36.0);
        assert_eq!(new_tokens(Strategy::FanOut, 33, 2, Some(16)), 6.0);
    }
}
