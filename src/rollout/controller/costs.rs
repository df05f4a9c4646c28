//! What was measured: the state from which every decision is made.

use std::sync::LazyLock;

use super::acceptance::Record;
use super::curve::Curve;
use super::forecast::{Company, RoundCost};
use super::line::{Cost, Line};
use super::measurement::{Belief, Measurement};
use super::tail::Tails;
use super::together::Together;
use crate::verify::Strategy;

/// Up to so many at once are one. Verifications up to so many tell the cost of one; more, only how they hinder each other.
const NEARLY_ALONE: f64 = 1.5;
/// Tokens of context that a drafter reads along with its first draft, as it does after every round.
const READS_ALONG: usize = 8;
/// So many take long enough to tell what reading takes.
const READS_FOR_LONG: usize = 64;
/// Reading a token of a context is believed to take this share of drafting one: many are read in a pass.
const READING_SHARE: f64 = 0.1;
/// Of what is known of the costs of drafts and verifications, half is forgotten after so many tokens decoded alone: what is
/// taken to be too expensive to be tried would never be found to be cheaper.
const FORGOTTEN: f64 = 2000.0;
/// Each further rollout is believed to make a draft longer by this share of it, until it is measured.
const ROW_SHARE: f64 = 0.03;
/// No drafter is taken to be slowed down more than this by company.
const MOST_EXCESS: f64 = 32.0;
/// A measured mean of this weight is as good as any.
const KNOWN: f64 = 2.0;
/// So many rounds tell what comes true of forecasts: few bring much more or much less.
const MANY_ROUNDS: f64 = 16.0;
/// A round of a few among many that decode is believed to bring what was foreseen as if that came of so many.
const ROUNDS_BELIEVED: f64 = 4.0;
/// After so many rounds without one, the time of a decoded token is due to be measured again.
const STALE_AFTER: u32 = 2000;
/// The same where all of a crowd would have to decode to measure it.
const STALE_FOR_ALL_AFTER: u32 = 50 * STALE_AFTER;
/// Verifications by which a change of the server's pace is noticed.
const LATELY: f64 = 16.0;

/// Everything that was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    decode: Curve,
    rounds_since_decode: u32,
    verify: [Verification; 3],
    drafters: Vec<DrafterCosts>,
    judgements: u64,
    extra: [Mean; 2],
    /// Tokens that rounds brought for each that was foreseen, by load.
    rounds: Curve,
    /// What rounds come to where all of a crowd go by old rollouts.
    pub together: Together,
    /// How much probability lies beyond the first entries of a row.
    pub tails: Tails,
    /// Requests at the server beside those of this sidecar.
    pub others: f64,
    /// Tokens in a block of the server's prefix cache, where it tells.
    pub block_size: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Verification {
    /// Of one that is nearly alone, beyond the step that it takes part in.
    line: Line,
    /// Of the only one among rollouts that decode, whose request may wait for longer than half a step.
    among: Line,
    /// How much longer it took among others than was foreseen, by load.
    excess: Curve,
    /// The same of late, and when decoding was last measured.
    of_late: Mean,
    settled: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct DrafterCosts {
    /// Of a proposal, by its length, where hardly anybody else wants one.
    line: Line,
    /// How many times as long proposals take, by how many rollouts speculate.
    excess: Curve,
    /// Of each token of a context to be read.
    reading: Mean,
    record: Record,
    /// Whose drafts its own are like after the first.
    like: Option<usize>,
    /// Tokens that a round brought for each that was foreseen, while most rollouts decoded.
    among: Mean,
    /// The round, counted over all drafters, in which its drafts were last judged.
    last_judged: u64,
}

impl DrafterCosts {
    fn observe(&mut self, speculating: f64, unread: usize, tokens: usize, seconds: f64, prior: Cost) {
        let foreseen = self.line.fit(prior).of(tokens as f64);
        if unread >= READS_FOR_LONG {
            let drafting = foreseen * self.excess_at(speculating);
            self.reading.observe((seconds - drafting).max(0.0) / unread as f64);
        } else if unread > READS_ALONG {
            // It tells of neither.
        } else if speculating < NEARLY_ALONE {
            self.line.observe(tokens as f64, seconds, prior);
        } else {
            self.excess.observe(speculating, seconds / foreseen, 1.0);
        }
    }

    fn excess_at(&self, speculating: f64) -> f64 {
        if speculating < NEARLY_ALONE {
            return 1.0;
        }
        let believed = 1.0 + ROW_SHARE * (speculating - 1.0);
        match self.excess.at(speculating) {
            Some(seen) if self.excess.weight_at(speculating) >= KNOWN => seen.clamp(1.0, MOST_EXCESS),
            seen => seen.unwrap_or(1.0).clamp(believed, MOST_EXCESS),
        }
    }
}

impl Verification {
    /// What one costs at this load, beyond the step that it takes part in. A token is the same work in any company.
    fn cost(&self, load: f64, prior: Cost) -> Cost {
        if load < NEARLY_ALONE {
            let each = self.among.fit(prior).each;
            return self.line.fit(Cost { each, ..prior });
        }
        self.among.fit(self.line.fit(prior))
    }

    fn fade(&mut self, share: f64) {
        self.line.fade(share);
        self.among.fade(share);
    }

    fn observe_pace(&mut self, excess: f64) {
        self.of_late.observe_within(excess, LATELY);
        if self.of_late.weight >= LATELY {
            self.settled.get_or_insert(self.of_late.value);
        }
    }

    /// Whether verifications take much longer or shorter, against the forecast, than when decoding was last measured.
    fn has_shifted(&self) -> bool {
        self.settled.is_some_and(|settled| !(0.6..1.7).contains(&(self.of_late.value / settled)))
    }
}

/// A mean that fades.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    value: f64,
    weight: f64,
}

impl Mean {
    fn observe(&mut self, value: f64) {
        self.observe_within(value, 50.0);
    }

    fn observe_within(&mut self, value: f64, memory: f64) {
        self.weight = (self.weight + 1.0).min(memory);
        self.value += (value - self.value) / self.weight;
    }
}

fn place(strategy: Strategy) -> usize {
    match strategy {
        Strategy::CachedSuffix => 0,
        Strategy::PromptLogprobs => 1,
        Strategy::FanOut => 2,
    }
}

impl Costs {
    /// Takes in a measurement.
    pub fn observe(&mut self, measurement: Measurement) {
        match measurement {
            #[cfg(test)]
            Measurement::Panic => panic!("planted"),
            Measurement::Decoded { load, interval, tokens } => {
                self.rounds_since_decode = 0;
                for verification in &mut self.verify {
                    (verification.of_late, verification.settled) = (Mean::default(), None);
                }
                if load < NEARLY_ALONE {
                    let share = 0.5_f64.powf(tokens / FORGOTTEN);
                    self.drafters.iter_mut().for_each(|costs| costs.line.fade(share));
                    self.verify.iter_mut().for_each(|costs| costs.fade(share));
                }
                // Prompts that are read, and others' verifications, make it longer, never shorter.
                self.decode.observe_disturbed(load, interval, tokens / 4.0);
            }
            Measurement::Verified { strategy, company, new_tokens, elsewhere, seconds } => {
                self.rounds_since_decode = self.rounds_since_decode.saturating_add(1);
                self.verified(strategy, company, new_tokens, elsewhere, seconds);
            }
            Measurement::Drafted { drafter, speculating, unread, tokens, seconds } => {
                let prior = self.draft_prior();
                self.drafter(drafter).observe(speculating, unread, tokens, seconds, prior);
            }
            Measurement::Judged { drafter, drafts } => {
                self.judgements += 1;
                let now = self.judgements;
                let costs = self.drafter(drafter);
                costs.last_judged = now;
                drafts.into_iter().for_each(|judged| costs.record.observe(judged));
            }
            // A few that speculate among many that decode say nothing of what happens if all do.
            Measurement::Round { drafter, company, tokens, foreseen } => {
                let share = tokens as f64 / foreseen;
                if company.speculating >= company.decoding {
                    self.rounds.observe(company.requests(), share, 1.0);
                } else {
                    self.drafter(drafter).among.observe(share);
                }
            }
            Measurement::Together { load, beside, tokens, seconds } => {
                self.together.observe(load, beside, tokens, seconds);
            }
            Measurement::Believed { drafter, belief: Belief::Acceptance(share) } => {
                self.drafter(drafter).record.believe(share);
            }
            Measurement::Believed { drafter, belief: Belief::Like(other) } => self.drafter(drafter).like = Some(other),
            Measurement::Extra { greedy, seconds } => self.extra[usize::from(greedy)].observe(seconds),
            Measurement::Tail(tails) => self.tails.merge(&tails),
            Measurement::Server { others, block_size } => {
                self.others = others;
                self.block_size = block_size.or(self.block_size);
            }
        }
    }

    /// Seconds from one decoded token to the next where the server works on so many requests; absent before any was
    /// measured.
    #[must_use]
    pub fn interval(&self, load: f64) -> Option<f64> {
        self.decode.at(load)
    }

    /// The share of the foreseen tokens that rounds have brought at this load while most rollouts speculated, where enough
    /// were seen; at most 1.
    #[must_use]
    pub fn come_true(&self, load: f64) -> f64 {
        let seen = self.rounds.weight_at(load) >= MANY_ROUNDS;
        self.rounds.at(load).filter(|_| seen).unwrap_or(1.0).min(1.0)
    }

    /// The share of the foreseen tokens that rounds of this drafter have brought while most rollouts decoded, at most 1. A
    /// proposal is taken where it looks best, so it looks better than it is.
    #[must_use]
    pub fn come_true_among(&self, drafter: usize) -> f64 {
        let seen = self.drafters.get(drafter).map_or(Mean::default(), |costs| costs.among);
        let share = (seen.value * seen.weight + ROUNDS_BELIEVED) / (seen.weight + ROUNDS_BELIEVED);
        share.min(1.0)
    }

    /// Whether decoding at this load has to be measured before it can be compared with anything.
    #[must_use]
    pub fn is_unmeasured(&self, load: f64) -> bool {
        self.decode.weight_at(load) < KNOWN && !self.decode.surrounds(load, KNOWN)
    }

    /// Whether decoding was measured so long ago that it may have changed, or has changed by the look of verifications,
    /// which take part in the same steps.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.rounds_since_decode > STALE_AFTER || self.verify.iter().any(Verification::has_shifted)
    }

    /// The same for a crowd that has gone by old rollouts since, all of which would have to decode to find out.
    #[must_use]
    pub fn is_stale_for_all(&self) -> bool {
        self.rounds_since_decode > STALE_FOR_ALL_AFTER
    }

    /// What is known of a drafter's proposals.
    #[must_use]
    pub fn record(&self, drafter: usize) -> &Record {
        static UNKNOWN: LazyLock<Record> = LazyLock::new(Record::default);
        self.drafters.get(drafter).map_or(&UNKNOWN, |costs| &costs.record)
    }

    /// The chance that a drafter's draft at `position`, of which it was so sure, is kept, given that it is reached.
    #[must_use]
    pub fn forecast(&self, drafter: usize, confidence: Option<f32>, position: usize) -> f64 {
        let record = self.record(drafter);
        match self.drafters.get(drafter).and_then(|costs| costs.like).filter(|_| position > 0) {
            Some(other) => record.at_position_like(position, self.record(other)),
            None => record.forecast(confidence, position),
        }
    }

    /// When a drafter's drafts were last judged: of two drafters, the one of the smaller number is the longer untried.
    #[must_use]
    pub fn last_judged(&self, drafter: usize) -> u64 {
        self.drafters.get(drafter).map_or(0, |costs| costs.last_judged)
    }

    /// Seconds that a drafter takes to read so many tokens of a context.
    #[must_use]
    pub fn reading(&self, drafter: usize, tokens: usize) -> f64 {
        let seen = self.drafters.get(drafter).map(|costs| costs.reading).filter(|reading| reading.weight > 0.0);
        tokens as f64 * seen.map_or(READING_SHARE * self.draft_prior().each, |reading| reading.value)
    }

    /// How much longer verifications take at this load than the pure arithmetic says.
    #[must_use]
    pub fn excess(&self, strategy: Strategy, load: f64) -> f64 {
        // Of one alone the line tells all.
        let seen = self.verify[place(strategy)].excess.at(load).filter(|_| load >= NEARLY_ALONE);
        seen.unwrap_or(1.0).clamp(0.25, 4.0)
    }

    /// What a round costs in this company; absent before decoding was measured.
    #[must_use]
    pub fn round(
        &self,
        strategy: Strategy,
        drafter: Option<usize>,
        greedy: bool,
        company: Company,
    ) -> Option<RoundCost> {
        let load = company.requests();
        let interval = self.decode.at(load)?;
        let row = self.row(load, interval);
        let base = interval - row * company.speculating;
        let draft = drafter.and_then(|drafter| self.drafters.get(drafter));
        let draft = draft.map_or(Cost { fixed: 0.0, each: 0.0 }, |costs| {
            costs.line.fit(self.draft_prior()).times(costs.excess_at(company.speculating))
        });
        let verify = self.verify[place(strategy)].cost(load, self.verify_prior());
        Some(RoundCost { base, row, verify, draft, extra: self.extra[usize::from(greedy)].value })
    }

    /// Seconds of a server's step that a verification of so many new tokens is expected to take for itself.
    #[must_use]
    pub fn work(&self, strategy: Strategy, load: f64, new_tokens: f64) -> f64 {
        let Some(interval) = self.decode.at(load) else { return 0.0 };
        self.row(load, interval) + self.verify[place(strategy)].cost(load, self.verify_prior()).each * new_tokens
    }

    /// What a request adds to the steps that serve it.
    fn row(&self, load: f64, interval: f64) -> f64 {
        self.decode.slope().min(interval / load.max(1.0))
    }

    fn drafter(&mut self, drafter: usize) -> &mut DrafterCosts {
        if self.drafters.len() <= drafter {
            self.drafters.resize_with(drafter + 1, DrafterCosts::default);
        }
        &mut self.drafters[drafter]
    }

    fn verified(&mut self, strategy: Strategy, company: Company, new_tokens: f64, elsewhere: f64, seconds: f64) {
        let load = company.requests();
        let Some(cost) = self.round(strategy, None, true, company) else { return };
        let prior = self.verify_prior();
        let foreseen = cost.verification(new_tokens, elsewhere, company);
        let verification = &mut self.verify[place(strategy)];
        let own = (seconds - (foreseen - cost.verify.of(new_tokens))).max(0.0);
        if load < NEARLY_ALONE {
            verification.line.observe(new_tokens, own, prior);
        } else if company.speculating < NEARLY_ALONE {
            let prior = verification.line.fit(prior);
            verification.among.observe(new_tokens, own, prior);
        } else {
            verification.excess.observe(load, seconds / foreseen, 1.0);
        }
        verification.observe_pace(seconds / foreseen);
    }

    /// A guess for the first rounds, from what a decoded token takes. A new token is about as much work as one more request
    /// that decodes; and no less than a GPU of today takes that computes as fast as it can, against reading all weights once.
    fn verify_prior(&self) -> Cost {
        let step = self.decode.at(1.0).unwrap_or(0.01);
        Cost { fixed: 0.15 * step, each: self.decode.slope().clamp(0.005 * step, 0.1 * step) }
    }

    fn draft_prior(&self) -> Cost {
        let step = self.decode.at(1.0).unwrap_or(0.01);
        Cost { fixed: 0.05 * step, each: 0.1 * step }
    }
}

#[cfg(test)]
mod tests;
