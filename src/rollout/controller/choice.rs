//! The decision: which of the ways to go on is expected to bring the most tokens a second.

use super::acceptance::under;
use super::costs::Costs;
use super::forecast::{Best, Company, best_length};
use super::strategy::Plan;
use super::{Policy, Speculate};
use crate::draft::StopRule;
use crate::speculation::Proposal;
use crate::verify::Strategy;

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
/// Tokens that leaving a decode stream costs beside the way back to one: a step that is thrown away.
const THROWN_AWAY: f64 = 1.0;
/// A rollout that has brought so many tokens or fewer is expected to bring as many more; a longer one as many as it has.
const LEAST_REST: usize = 64;
/// Rollouts that are not a crowd yet.
const FEW: f64 = 2.0;
/// The server's block size where it does not tell: vLLM's default.
const USUAL_BLOCK: usize = 16;

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
    /// That proposal, where it may be looked at before it is decided to have it judged.
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
    /// Those of them that speculate.
    pub speculating: f64,
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

/// Tokens that the server computes to verify so many drafts after a context, whose full blocks are in its prefix cache.
/// The context's last token was sampled and never computed.
#[must_use]
pub fn new_tokens(strategy: Strategy, context: usize, drafts: usize, block: Option<usize>) -> f64 {
    let open = (context.max(1) - 1) % block.unwrap_or(USUAL_BLOCK).max(1) + 1;
    computed(strategy, context as f64, drafts as f64, open as f64)
}

/// The same on average over the rounds to come: the open block's tokens, which are computed anew each time, are few in one
/// round and many in the next, and say nothing of what to do in all of them. A round that follows one whose drafts ended with
/// a block and were all kept, of which there is this chance, finds a single one.
fn usual_new_tokens(strategy: Strategy, context: usize, drafts: usize, block: Option<usize>, aligned: f64) -> f64 {
    let any = (block.unwrap_or(USUAL_BLOCK).max(1) + 1) as f64 / 2.0;
    let open = any + aligned * (1.0 - any);
    computed(strategy, context as f64, drafts as f64, open.min(context as f64))
}

/// Where the context ends with `open` tokens that are in no full block.
fn computed(strategy: Strategy, context: f64, drafts: f64, open: f64) -> f64 {
    match strategy {
        Strategy::CachedSuffix => open + drafts,
        Strategy::PromptLogprobs => context + drafts,
        Strategy::FanOut => (drafts + 1.0) * (open + drafts / 2.0),
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
    if costs.is_stale() {
        return Choice::decode(Reason::Stale, TO_MEASURE);
    }
    let decode_rate = 1.0 / interval;
    let decode = Choice { decode_rate: Some(decode_rate), ..Choice::decode(Reason::Fastest, TO_REVIEW) };
    let offers: Vec<_> = candidates.iter().filter_map(|candidate| situation.offer(candidate, load)).collect();
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
    let affordable = stakes.filter(|(_, stake)| situation.allowance > *stake);
    match affordable.min_by_key(|(offer, _)| costs.last_judged(offer.candidate.drafter)) {
        Some((offer, stake)) => take(offer, stake, Reason::Explore),
        None => Choice { bet_rate: Some(best.rate), ..decode },
    }
}

/// What a drafter has to offer.
struct Offer<'a> {
    candidate: &'a Candidate<'a>,
    /// Its best round.
    best: Best,
    /// Seconds until it can begin.
    reading: f64,
    /// Tokens a second over what is expected to come, the reading included.
    rate: f64,
    /// Seconds that it is expected to go on for: one that is made of what the text is now may end with it.
    lasting: f64,
    /// What its round costs in a crowd of which most go on decoding.
    among: Option<Among>,
}

/// What a round costs among others that decode.
struct Among {
    /// Seconds that it takes.
    seconds: f64,
    /// Tokens that the others lose by it.
    lost: f64,
}

impl Offer<'_> {
    /// Tokens that a round of it is expected to lose against decoding.
    fn stake(&self, decode_rate: f64) -> f64 {
        (decode_rate - self.best.rate()).max(0.0) * self.best.seconds + decode_rate * self.reading
    }
}

impl Situation<'_> {
    fn offer<'a>(&self, candidate: &'a Candidate<'a>, load: f64) -> Option<Offer<'a>> {
        let best = self.best(candidate, load)?;
        let reading = if candidate.is_at_hand { 0.0 } else { self.costs.reading(candidate.drafter, candidate.unread) };
        let rest = self.room.min(self.committed.max(LEAST_REST)) as f64;
        let rate = rest / (rest / best.rate() + reading);
        let lasting = if candidate.is_at_hand { best.seconds } else { rest / rate };
        let among = if self.is_detour(load) { self.among(candidate, &best, load) } else { None };
        Some(Offer { candidate, best, reading, rate, lasting, among })
    }

    /// Whether most of a crowd decode.
    fn is_detour(&self, load: f64) -> bool {
        is_crowd(load) && self.speculating < load / 2.0
    }

    /// What a round costs where those that decode go on doing so.
    fn among(&self, candidate: &Candidate<'_>, best: &Best, load: f64) -> Option<Among> {
        let speculating = match self.mode {
            Some(Mode::Speculate) => self.speculating.max(1.0),
            _ => self.speculating + 1.0,
        };
        let company = Company { speculating, decoding: load - speculating };
        let strategy = self.plan.strategy;
        let cost = self.costs.round(strategy, Some(candidate.drafter), self.greedy, company)?;
        let new_tokens = usual_new_tokens(strategy, self.context, best.length, self.costs.block_size, 0.0);
        let drafting = if candidate.is_at_hand { 0.0 } else { cost.draft.of(best.length as f64) };
        let elsewhere = drafting + cost.extra;
        let seconds = elsewhere + cost.verification(new_tokens, elsewhere, company);
        let lost = (load - 1.0) * cost.verify.each * new_tokens / self.costs.interval(load)?;
        Some(Among { seconds, lost })
    }

    /// Tokens that everybody together loses when this rollout leaves what it does now and decodes later on: its request
    /// waits for half a step, and makes a step longer for all by the context's open block.
    fn switching(&self, load: f64, decode_rate: f64) -> f64 {
        let thrown_away = match self.mode {
            Some(Mode::Speculate) => return 0.0,
            Some(Mode::Decode) => THROWN_AWAY,
            None => 0.0,
        };
        let company = Company { speculating: 1.0, decoding: load - 1.0 };
        let open = usual_new_tokens(Strategy::CachedSuffix, self.context, 0, self.costs.block_size, 0.0);
        let Some(cost) = self.costs.round(Strategy::CachedSuffix, None, self.greedy, company) else {
            return thrown_away;
        };
        let own = cost.verification(open, 0.0, company) - 1.0 / decode_rate;
        let others = (load - 1.0) * cost.verify.each * open;
        thrown_away + decode_rate * (own + others)
    }

    /// Seconds by which the server's step becomes longer for everybody that a round of this offer is part of.
    fn disturbance(&self, offer: &Offer<'_>, load: f64) -> f64 {
        let Plan { strategy, .. } = self.plan;
        let new_tokens = usual_new_tokens(strategy, self.context, offer.best.length, self.costs.block_size, 0.0);
        self.costs.work(strategy, load, new_tokens)
    }

    /// The best round of a drafter.
    fn best(&self, candidate: &Candidate<'_>, load: f64) -> Option<Best> {
        let Candidate { drafter, hazard, longest, is_at_hand, ready, .. } = *candidate;
        // What is best for one whose drafts do better than others' makes the steps of all the others longer.
        let hazard = if is_crowd(load) { hazard.max(1.0) } else { hazard };
        let company = Company { speculating: self.rollouts, decoding: self.costs.others };
        let cost = self.costs.round(self.plan.strategy, Some(drafter), self.greedy, company)?;
        let excess = self.costs.excess(self.plan.strategy, load);
        // A few that speculate among many that decode are quicker than all would be: that says nothing of a crowd.
        let excess = if is_crowd(self.rollouts) { excess.max(1.0) } else { excess };
        let block = self.costs.block_size;
        let seconds = |drafts: usize, all_kept: f64| {
            // See `in_whole_blocks`.
            let is_aligned = is_at_hand && ready.is_none() && drafts >= block.unwrap_or(USUAL_BLOCK);
            let aligned = if is_aligned { all_kept } else { 0.0 };
            let new = usual_new_tokens(self.plan.strategy, self.context, drafts, block, aligned);
            let draft = if is_at_hand { 0.0 } else { cost.draft.of(drafts as f64) };
            let elsewhere = draft + cost.extra;
            elsewhere + excess * cost.verification(new, elsewhere, company)
        };
        let most = self.room.min(longest);
        match ready {
            Some(proposal) => {
                let drafts = proposal.drafts.iter().take(most).enumerate();
                best_length(
                    drafts.map(|(at, draft)| under(self.costs.forecast(drafter, draft.confidence, at), hazard)),
                    seconds,
                )
            }
            None => best_length((0..most).map(|at| under(self.costs.forecast(drafter, None, at), hazard)), seconds),
        }
    }

    /// So many drafts, a few less or a few more, so that those of a block or more end with a block: if all are kept, the next
    /// round finds all but its own drafts in the prefix cache.
    fn in_whole_blocks(&self, length: usize, most: usize) -> usize {
        let block = self.costs.block_size.unwrap_or(USUAL_BLOCK).max(1);
        if self.plan.strategy != Strategy::CachedSuffix || length < block {
            return length;
        }
        let over = (self.context + length) % block;
        let longer = length + block - over;
        if 2 * over > block && longer <= most { longer } else { length - over.min(length - 1) }
    }

    fn bet(&self, offer: &Offer<'_>, stake: f64) -> Bet {
        let Candidate { drafter, hazard, longest, is_at_hand, ready, .. } = *offer.candidate;
        let best = offer.best;
        let exactly = |length| Bet { drafter, length, stop: StopRule::never(), stake, foreseen: Some(best) };
        if is_at_hand {
            return exactly(if ready.is_none() {
                self.in_whole_blocks(best.length, self.room.min(longest))
            } else {
                best.length
            });
        }
        if is_crowd(self.rollouts) {
            // It is worth more that proposals are of one length: then verifications share the server's steps.
            let usual = Candidate { hazard: 1.0, ..*offer.candidate };
            let usual = self.best(&usual, self.rollouts + self.costs.others);
            return exactly(usual.map_or(best.length, |usual| usual.length));
        }
        let record = self.costs.record(drafter);
        // A drafter that knows how sure it is may go on for longer than is usual, and stops by itself.
        let length = if record.knows_confidence() { 2 * best.length + 2 } else { best.length };
        let acceptance = std::array::from_fn(|bin| under(record.by_confidence(bin), hazard) as f32);
        // The rule looks at the drafts that there are; the next one's chance is the usual one.
        let least = (best.least / under(record.overall(), hazard).max(0.05)).min(1.0) as f32;
        Bet { length: length.min(self.room).min(longest), stop: StopRule { acceptance, least }, ..exactly(0) }
    }
}

#[cfg(test)]
mod tests;
