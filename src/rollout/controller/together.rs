//! A crowd of which each has an old rollout of its own: whether all go by them is decided once for all.
//!
//! What one of a crowd should do depends on what the others do. While most have old tokens scored, the server's steps are long,
//! and who decodes beside them gets one token of each; so who is alone in leaving loses, even where all would be faster if all
//! left. What counts is therefore not what one's own next round is expected to come to, but what rounds have come to for all who
//! had an old rollout while most did the same, against what decoding would bring if all decoded.

use super::choice::{Mode, Situation, is_crowd};
use super::curve::Curve;
use super::offers::Offer;

/// How much faster than decoding it must have been for all, to begin, and to go on.
const TO_BEGIN: f64 = 1.1;
const TO_STAY: f64 = 0.97;
/// What so many rounds of everybody came to is taken for what they come to.
const KNOWN: f64 = 2.0;
/// What a round of everybody weighs, so that eight are remembered: less is known of a text's later tokens than of its first.
const WEIGHT: f64 = 8.0;
/// Where so much less than decoding is foreseen, it is not tried.
const HOPELESS: f64 = 0.5;
/// Tokens that each loses at least by a trial that comes to nothing: it is known to after some rounds, and they begin to decode
/// one by one.
const LEAST_STAKE: f64 = 8.0;
/// Tokens that one who decodes gets while the others have a round: it takes two of the server's steps, the one that it waits
/// for and its own.
const DECODED_MEANWHILE: f64 = 2.0;

/// What rounds of rollouts that have an old one came to in crowds of which most speculated, by load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Together {
    tokens: Curve,
    seconds: Curve,
}

/// The same at some load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Tokens a second that each of them got.
    pub rate: f64,
    /// Seconds of a round.
    pub seconds: f64,
}

impl Together {
    /// Takes in a round: its tokens, and its seconds where they may be told. A share of those who began together decode `beside`
    /// them by now, and had theirs meanwhile.
    pub fn observe(&mut self, load: f64, beside: f64, tokens: usize, seconds: Option<f64>) {
        let weight = WEIGHT / load.max(WEIGHT);
        let of_all = tokens as f64 + beside * (DECODED_MEANWHILE - tokens as f64);
        self.tokens.observe(load, of_all, weight);
        if let Some(seconds) = seconds {
            self.seconds.observe(load, seconds, weight);
        }
    }

    /// What they come to at this load, where enough were seen.
    #[must_use]
    pub fn at(&self, load: f64) -> Option<Seen> {
        let known = |curve: &Curve| curve.at(load).filter(|_| curve.weight_at(load) >= WEIGHT * KNOWN);
        let (tokens, seconds) = (known(&self.tokens)?, known(&self.seconds)?);
        Some(Seen { rate: tokens / seconds, seconds })
    }
}

/// What one of a crowd does.
pub(super) enum Joint<'a> {
    /// It begins by an offer, and may lose so many tokens by that to find out.
    Begin(&'a Offer<'a>, f64),
    /// It goes on by an offer.
    GoOn(&'a Offer<'a>),
    /// It decodes, as all do.
    Decode,
}

impl Situation<'_> {
    /// Whether most of a crowd speculate, or may all begin to.
    fn may_act_together(&self, load: f64) -> bool {
        is_crowd(load) && self.speculating + self.undecided >= load / 2.0
    }

    /// Whether it is not known yet what comes of that: then rounds are to be short.
    pub(super) fn tries_together(&self) -> bool {
        let load = self.rollouts + self.costs.others;
        self.may_act_together(load) && self.costs.together.at(load).is_none()
    }

    /// What one does that has an old rollout, in a crowd of which most speculate or may all begin to: nothing is said of others.
    pub(super) fn joint<'a>(&self, offers: &'a [Offer<'a>], load: f64, decode_rate: f64) -> Option<Joint<'a>> {
        let old = offers.iter().find(|offer| offer.candidate.is_drawn())?;
        if !self.may_act_together(load) {
            return None;
        }
        let seen = self.costs.together.at(load);
        match self.mode {
            None => {
                let rate = seen.map_or(old.rate, |seen| seen.rate);
                if rate > TO_BEGIN * decode_rate {
                    return Some(Joint::Begin(old, 0.0));
                }
                // Where most do, who stays behind is worse off.
                if seen.is_none() && self.speculating >= load / 2.0 {
                    return Some(Joint::Begin(old, 0.0));
                }
                // All of them lose as much.
                let stake = ((decode_rate - rate) * old.best.seconds * KNOWN).max(LEAST_STAKE);
                let is_tried = rate > HOPELESS * decode_rate && self.joint_allowance > stake * load;
                is_tried.then_some(Joint::Begin(old, stake))
            }
            Some(Mode::Speculate) => {
                let Some(seen) = seen else { return Some(Joint::GoOn(old)) };
                if seen.rate < TO_STAY * decode_rate {
                    return Some(Joint::Decode);
                }
                let best = offers.iter().max_by(|a, b| a.best.tokens.total_cmp(&b.best.tokens))?;
                let goes_on = best.best.tokens > TO_STAY * DECODED_MEANWHILE;
                Some(if goes_on { Joint::GoOn(best) } else { Joint::Decode })
            }
            Some(Mode::Decode) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::{Candidate, Choice, Reason, choose};
    use super::super::costs::Costs;
    use super::super::forecast::Company;
    use super::super::measurement::Measurement;
    use super::super::strategy::Plan;
    use super::super::{Judged, Policy};
    use super::*;
    use crate::verify::Strategy;

    const CROWD: f64 = 128.0;
    /// Tokens a second that each gets where all decode.
    const DECODE: f64 = 100.0;

    fn costs() -> Costs {
        let mut costs = Costs::default();
        costs.observe(Measurement::Decoded { load: CROWD, interval: 1.0 / DECODE, tokens: 100.0 });
        costs
    }

    /// Where so many rounds of everybody brought so many tokens in a tenth of a second.
    fn after(rounds: usize, tokens: usize) -> Costs {
        let mut costs = costs();
        for _ in 0..rounds * CROWD as usize {
            costs.observe(Measurement::Together { load: CROWD, beside: 0.0, tokens, seconds: Some(0.1) });
        }
        costs
    }

    /// Where such a share of the drafts was accepted.
    fn judged(mut costs: Costs, share: f64) -> Costs {
        for index in 0..3000_u32 {
            let accepted = f64::from(index % 100) < 100.0 * share;
            let drafts = vec![Judged { position: index as usize % 16, confidence: None, accepted }];
            costs.observe(Measurement::Judged { drafter: 0, drafts });
        }
        costs
    }

    struct Scene<'a> {
        costs: &'a Costs,
        speculating: f64,
        undecided: f64,
        mode: Option<Mode>,
        joint_allowance: f64,
    }

    /// At the start of a step of whose rollouts none has begun.
    fn at_start(costs: &Costs) -> Scene<'_> {
        Scene { costs, speculating: 0.0, undecided: CROWD, mode: None, joint_allowance: 0.0 }
    }

    /// Where all speculate.
    fn under_way(costs: &Costs) -> Scene<'_> {
        Scene { speculating: CROWD, undecided: 0.0, mode: Some(Mode::Speculate), ..at_start(costs) }
    }

    impl Scene<'_> {
        /// What one does that has an old rollout.
        fn choice(&self) -> Choice {
            let old = Candidate {
                drafter: 0,
                hazard: 1.0,
                unread: 0,
                longest: 64,
                is_at_hand: true,
                is_veiled: false,
                ready: None,
            };
            let Self { costs, speculating, undecided, mode, joint_allowance } = *self;
            choose(&Situation {
                policy: &Policy::default(),
                costs,
                plan: Plan { strategy: Strategy::CachedSuffix, row_length: 2 },
                greedy: false,
                rollouts: CROWD,
                speculating,
                undecided,
                committed: if mode.is_some() { 100 } else { 0 },
                context: 1000,
                room: 400,
                candidates: &[old],
                mode,
                allowance: 0.0,
                joint_allowance,
            })
        }
    }

    #[test]
    fn all_begin_by_old_rollouts_where_that_was_faster_for_all_and_not_where_it_was_not() {
        let (faster, slower) = (after(3, 13), after(3, 9));
        assert_eq!(at_start(&faster).choice().mode(), Mode::Speculate);
        assert_eq!(at_start(&slower).choice().mode(), Mode::Decode);
        let among_others = Scene { undecided: 1.0, ..at_start(&faster) };
        assert_eq!(among_others.choice().mode(), Mode::Decode, "most of the others decode already");
    }

    #[test]
    fn all_decode_a_step_now_and_then_to_see_how_fast_that_is() {
        let mut costs = after(3, 13);
        let company = Company { speculating: CROWD, decoding: 0.0 };
        let (strategy, new_tokens, elsewhere, seconds) = (Strategy::CachedSuffix, 16.0, 0.0, 0.1);
        let reason = |costs: &Costs| at_start(costs).choice().reason;
        let mut rounds = 0;
        while reason(&costs) != Reason::Stale && rounds < 1_000_000 {
            costs.observe(Measurement::Verified { strategy, company, new_tokens, elsewhere, seconds });
            rounds += 1;
        }
        assert!((50_000..200_000).contains(&rounds), "{rounds}");
        assert_eq!(under_way(&costs).choice().mode(), Mode::Speculate, "but not in the middle of one");
    }

    #[test]
    fn all_go_on_or_leave_by_what_it_came_to_for_all() {
        let (faster, slower) = (after(3, 13), after(3, 9));
        assert_eq!(under_way(&faster).choice().mode(), Mode::Speculate);
        assert_eq!(under_way(&slower).choice().mode(), Mode::Decode);
        assert_eq!(under_way(&costs()).choice().mode(), Mode::Speculate, "it is not known yet");
    }

    #[test]
    fn who_has_bad_luck_stays_as_long_as_a_round_brings_more_than_decoding_beside_the_others() {
        let choice = |acceptance: f64| {
            let costs = judged(after(3, 13), acceptance);
            under_way(&costs).choice().mode()
        };
        assert_eq!((choice(0.7), choice(0.2)), (Mode::Speculate, Mode::Decode));
    }

    #[test]
    fn what_is_not_known_is_tried_by_all_once_all_have_won_what_that_may_cost() {
        // A token is believed to take so long to score that decoding looks better.
        let mut costs = judged(costs(), 0.99);
        costs.observe(Measurement::Decoded { load: 16.0, interval: 0.0025, tokens: 100.0 });
        let choice = |joint_allowance| Scene { joint_allowance, ..at_start(&costs) }.choice();
        let unpaid = choice(CROWD * LEAST_STAKE / 2.0);
        assert_eq!(unpaid.mode(), Mode::Decode, "{unpaid:?}");
        let tried = choice(100.0 * CROWD * LEAST_STAKE);
        assert_eq!((tried.mode(), tried.reason), (Mode::Speculate, Reason::Together), "{tried:?}");
        assert!(tried.bet.unwrap().stake >= LEAST_STAKE);
    }

    #[test]
    fn those_who_decode_beside_the_others_count_as_well() {
        let mut costs = after(8, 15);
        assert_eq!(at_start(&costs).choice().mode(), Mode::Speculate);
        for _ in 0..24 * CROWD as usize {
            costs.observe(Measurement::Together { load: CROWD, beside: 0.5, tokens: 15, seconds: Some(0.1) });
        }
        let seen = costs.together.at(CROWD).unwrap();
        assert!((80.0..97.0).contains(&seen.rate), "{seen:?}");
        assert_eq!(at_start(&costs).choice().mode(), Mode::Decode);
        assert_eq!(under_way(&costs).choice().mode(), Mode::Decode);
    }

    #[test]
    fn the_last_rounds_of_everybody_count() {
        let mut costs = after(20, 13);
        for _ in 0..8 * CROWD as usize {
            costs.observe(Measurement::Together { load: CROWD, beside: 0.0, tokens: 8, seconds: None });
        }
        let seen = costs.together.at(CROWD).unwrap();
        assert!(seen.rate < 105.0 && (seen.seconds - 0.1).abs() < 1e-9, "{seen:?}");
    }
}
