//! What each drafter has to offer: the best round that it is expected to make, and what that costs everybody.

use super::acceptance::under;
use super::choice::{Bet, Candidate, Mode, Situation, is_crowd};
use super::forecast::{Best, Company, best_length};
use super::strategy::Plan;
use crate::draft::StopRule;
use crate::verify::Strategy;

/// Tokens that leaving a decode stream costs beside the way back to one: a step that is thrown away.
const THROWN_AWAY: f64 = 1.0;
/// A rollout that has brought so many tokens or fewer is expected to bring as many more; a longer one as many as it has.
const LEAST_REST: usize = 64;
/// The server's block size where it does not tell: vLLM's default.
const USUAL_BLOCK: usize = 16;

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
pub(super) fn usual_new_tokens(
    strategy: Strategy,
    context: usize,
    drafts: usize,
    block: Option<usize>,
    aligned: f64,
) -> f64 {
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

/// What a drafter has to offer.
pub(super) struct Offer<'a> {
    pub(super) candidate: &'a Candidate<'a>,
    /// Its best round.
    pub(super) best: Best,
    /// Seconds until it can begin.
    pub(super) reading: f64,
    /// Tokens a second over what is expected to come, the reading included.
    pub(super) rate: f64,
    /// Seconds that it is expected to go on for: one that is made of what the text is now may end with it.
    pub(super) lasting: f64,
    /// What its round costs in a crowd of which most go on decoding.
    pub(super) among: Option<Among>,
}

/// What a round costs among others that decode.
pub(super) struct Among {
    /// Seconds that it takes.
    pub(super) seconds: f64,
    /// Tokens that the others lose by it.
    pub(super) lost: f64,
}

impl Offer<'_> {
    /// Tokens that a round of it is expected to lose against decoding.
    pub(super) fn stake(&self, decode_rate: f64) -> f64 {
        (decode_rate - self.best.rate()).max(0.0) * self.best.seconds + decode_rate * self.reading
    }
}

impl Situation<'_> {
    pub(super) fn offer<'a>(&self, candidate: &'a Candidate<'a>, load: f64) -> Option<Offer<'a>> {
        let best = self.best(candidate, load)?;
        let reading = if candidate.is_at_hand { 0.0 } else { self.costs.reading(candidate.drafter, candidate.unread) };
        let rest = self.room.min(self.committed.max(LEAST_REST)) as f64;
        let rate = rest / (rest / best.rate() + reading);
        let lasting = if candidate.is_at_hand { best.seconds } else { rest / rate };
        let among = if self.is_detour(load) { self.among(candidate, &best, load) } else { None };
        Some(Offer { candidate, best, reading, rate, lasting, among })
    }

    /// Whether most of a crowd decode.
    pub(super) fn is_detour(&self, load: f64) -> bool {
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
    pub(super) fn switching(&self, load: f64, decode_rate: f64) -> f64 {
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
    pub(super) fn disturbance(&self, offer: &Offer<'_>, load: f64) -> f64 {
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

    /// No more drafts at the start of a crowd's outputs than fill the block that their prompt leaves open. Those of one prompt
    /// often begin with the same tokens; of a whole block that another has had computed no row is told, but for the last.
    fn in_first_block(&self, length: usize) -> usize {
        let block = self.costs.block_size.unwrap_or(USUAL_BLOCK).max(1);
        if self.plan.strategy != Strategy::CachedSuffix || !is_crowd(self.rollouts) {
            length
        } else if self.committed == 0 {
            length.min(block - self.context % block)
        } else if self.tries_together() {
            length.min(block)
        } else {
            length
        }
    }

    pub(super) fn bet(&self, offer: &Offer<'_>, stake: f64) -> Bet {
        let Candidate { drafter, hazard, longest, is_at_hand, ready, .. } = *offer.candidate;
        let best = offer.best;
        let exactly = |length| Bet { drafter, length, stop: StopRule::never(), stake, foreseen: Some(best) };
        if is_at_hand {
            return exactly(if ready.is_none() {
                self.in_whole_blocks(self.in_first_block(best.length), self.room.min(longest))
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
