//! A cell in few numbers, all computed from its rounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::{Comparison, compare};
use super::counters::Counters;
use super::record::{Arm, Pair, Round};
use super::stats::{mean, median, quantile, sorted};

/// What a cell amounts to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub direct: Option<ArmSummary>,
    pub proxied: Option<ArmSummary>,
    pub comparison: Comparison,
    /// What the sidecar did; absent where its metrics page was not there.
    pub speculation: Option<Speculation>,
}

/// One arm, over its rounds that are not void.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ArmSummary {
    pub void_rounds: usize,
    pub rollouts: usize,
    pub tokens: u64,
    /// Of each round.
    pub rounds_tokens_per_second: Vec<f64>,
    /// Their median.
    pub tokens_per_second: Option<f64>,
    /// The median of the rounds' durations, in seconds.
    pub makespan: Option<f64>,
    /// Of rollouts, in seconds.
    pub latency: Option<Latency>,
    /// Until the first piece of a stream, in seconds.
    pub first: Option<Latency>,
    /// The median of the rounds' tails, in seconds: while only the last tenth of the rollouts ran.
    pub tail: Option<f64>,
    /// Where the workload tells answers.
    pub reward: Option<Reward>,
}

/// Rewards of rollouts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Reward {
    pub mean: f64,
    /// The standard error of the mean, as if rollouts were independent; those of one prompt are not quite.
    pub error: f64,
    pub rollouts: usize,
}

/// Quantiles of durations, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// What the sidecar did in the proxied rounds that are not void. Absent is what its page does not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Speculation {
    /// Over all rounds.
    pub counters: Counters,
    /// Tokens that a verified proposal brought: the accepted drafts and one of the target's own.
    pub acceptance_length: Option<f64>,
    /// Accepted drafts of all drafts.
    pub acceptance_rate: Option<f64>,
    /// Accepted drafts of the drafts at each position, from the first.
    pub acceptance_by_position: Option<Vec<f64>>,
    /// Output tokens that were decoded without a draft, of all.
    pub decoded_share: Option<f64>,
    /// Output tokens that were accepted drafts, of all.
    pub accepted_share: Option<f64>,
    /// The same by who had drafted them.
    pub accepted_by_drafter: Option<BTreeMap<String, f64>>,
    /// Where the rollouts' time went.
    pub time: TimeShare,
}

/// Seconds of all proxied rollouts. What overlaps counts for each part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct TimeShare {
    pub rollouts: f64,
    pub draft: Option<f64>,
    pub verify: Option<f64>,
    pub decode: Option<f64>,
}

impl Summary {
    pub(super) fn of(pairs: &[Pair]) -> Self {
        Self {
            direct: ArmSummary::of(pairs, Arm::Direct),
            proxied: ArmSummary::of(pairs, Arm::Proxied),
            comparison: compare(pairs),
            speculation: Speculation::of(&sound(pairs, Arm::Proxied)),
        }
    }

    pub(super) fn of_arm(&self, arm: Arm) -> Option<&ArmSummary> {
        match arm {
            Arm::Direct => self.direct.as_ref(),
            Arm::Proxied => self.proxied.as_ref(),
        }
    }
}

/// The rounds of an arm that are not void.
pub(super) fn sound(pairs: &[Pair], arm: Arm) -> Vec<&Round> {
    pairs.iter().filter_map(|pair| pair.of(arm)).filter(|round| round.void.is_none()).collect()
}

/// How long each rollout of these rounds took.
pub(super) fn latencies(rounds: &[&Round]) -> Vec<f64> {
    rounds.iter().flat_map(|round| &round.rollouts).map(|rollout| rollout.seconds).collect()
}

impl ArmSummary {
    fn of(pairs: &[Pair], arm: Arm) -> Option<Self> {
        let measured = pairs.iter().filter(|pair| pair.of(arm).is_some()).count();
        if measured == 0 {
            return None;
        }
        let rounds = sound(pairs, arm);
        let rates: Vec<f64> = rounds.iter().map(|round| round.tokens_per_second()).collect();
        let seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
        let latencies = latencies(&rounds);
        let first: Vec<f64> =
            rounds.iter().flat_map(|round| &round.rollouts).filter_map(|rollout| rollout.first).collect();
        Some(Self {
            void_rounds: measured - rounds.len(),
            rollouts: latencies.len(),
            tokens: rounds.iter().map(|round| round.tokens()).sum(),
            tokens_per_second: median(&rates),
            rounds_tokens_per_second: rates,
            makespan: median(&seconds),
            latency: Latency::of(&latencies),
            first: Latency::of(&first),
            tail: median(&rounds.iter().map(|round| round.tail()).collect::<Vec<_>>()),
            reward: Reward::of(&rounds),
        })
    }
}

impl Reward {
    fn of(rounds: &[&Round]) -> Option<Self> {
        let rewards = rounds.iter().flat_map(|round| &round.rollouts).filter_map(|rollout| rollout.reward);
        let rewards: Vec<f64> = rewards.collect();
        let (mean, rollouts) = (mean(&rewards)?, rewards.len());
        let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / rollouts as f64;
        Some(Self { mean, error: (variance / rollouts as f64).sqrt(), rollouts })
    }
}

impl Latency {
    fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let at = |share| quantile(&sorted, share);
        Some(Self { mean: mean(&sorted)?, p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

impl Speculation {
    fn of(rounds: &[&Round]) -> Option<Self> {
        let each = rounds.iter().map(|round| round.counters.as_ref()).collect::<Option<Vec<_>>>()?;
        let counters = each.into_iter().cloned().reduce(|a, b| a.plus(&b))?;
        let tokens = rounds.iter().map(|round| round.tokens()).sum::<u64>() as f64;
        let of = |part: Option<f64>, whole: Option<f64>| Some(part? / whole.filter(|whole| *whole > 0.0)?);
        let sum = |parts: &Option<BTreeMap<String, f64>>| parts.as_ref().map(|p| p.values().sum());
        Some(Self {
            acceptance_length: of(counters.accepted_tokens, counters.drafts).map(|accepted| accepted + 1.0),
            acceptance_rate: of(counters.accepted_tokens, counters.draft_tokens),
            acceptance_by_position: acceptance_by_position(&counters),
            decoded_share: of(counters.decoded_tokens, Some(tokens)),
            accepted_share: of(counters.accepted_tokens, Some(tokens)),
            accepted_by_drafter: counters.accepted_by_drafter.as_ref().filter(|_| tokens > 0.0).map(|drafters| {
                drafters.iter().map(|(drafter, accepted)| (drafter.clone(), accepted / tokens)).collect()
            }),
            time: TimeShare {
                rollouts: latencies(rounds).iter().sum(),
                draft: sum(&counters.draft_seconds),
                verify: sum(&counters.verify_seconds),
                decode: counters.decode_seconds,
            },
            counters,
        })
    }
}

/// Accepted drafts of the drafts at each position, up to the first at which there were none.
pub(super) fn acceptance_by_position(counters: &Counters) -> Option<Vec<f64>> {
    let (accepted, drafted) = (counters.accepted_by_position.as_ref()?, counters.drafted_by_position.as_ref()?);
    let rates = (0..).map(|position: usize| position.to_string()).map_while(|position| {
        let drafted = *drafted.get(&position).filter(|drafted| **drafted > 0.0)?;
        Some(accepted.get(&position).copied().unwrap_or(0.0) / drafted)
    });
    Some(rates.collect()).filter(|rates: &Vec<f64>| !rates.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::record::{Outcome, Rollout};
    use super::*;

    fn round(tokens: &[(u64, f64)], seconds: f64, counters: Option<Counters>) -> Round {
        let rollout = |(tokens, seconds): &(u64, f64)| Rollout {
            line: 1,
            group: None,
            started: 0.0,
            seconds: *seconds,
            first: None,
            reward: None,
            outcome: Outcome::Done { tokens: *tokens, prompt_tokens: None, finish: None },
        };
        let rollouts = tokens.iter().map(rollout).collect();
        Round { started: 0.0, seconds, cache_salt: None, rollouts, counters, void: None }
    }

    fn counters() -> Counters {
        Counters {
            drafts: Some(10.0),
            draft_tokens: Some(40.0),
            accepted_tokens: Some(30.0),
            accepted_by_position: Some([("0".into(), 9.0), ("1".into(), 6.0)].into()),
            drafted_by_position: Some([("0".into(), 10.0), ("1".into(), 10.0), ("2".into(), 5.0)].into()),
            draft_seconds: Some([("neural".into(), 1.0), ("ngram".into(), 0.5)].into()),
            ..Counters::default()
        }
    }

    #[test]
    fn an_arm_is_summed_up_over_its_sound_rounds() {
        let void = Round { void: Some("no".into()), ..round(&[(1000, 1.0)], 1.0, None) };
        let pairs: Vec<Pair> = [
            round(&[(10, 1.0), (30, 3.0)], 4.0, None),
            round(&[(20, 2.0), (40, 4.0)], 4.0, None),
            round(&[(50, 5.0)], 4.0, None),
            void,
        ]
        .into_iter()
        .map(|round| Pair { direct: Some(round), proxied: None })
        .collect();
        let summary = Summary::of(&pairs);
        let direct = summary.direct.unwrap();
        assert_eq!((direct.void_rounds, direct.rollouts, direct.tokens), (1, 5, 150));
        assert_eq!(direct.rounds_tokens_per_second, [10.0, 15.0, 12.5]);
        assert_eq!((direct.tokens_per_second, direct.makespan), (Some(12.5), Some(4.0)));
        let latency = direct.latency.unwrap();
        assert_eq!((latency.mean, latency.p50, latency.max), (3.0, 3.0, 5.0));
        assert_eq!((summary.proxied, summary.speculation), (None, None));
    }

    #[test]
    fn rewards_have_a_mean_and_its_error() {
        let mut round = round(&[(1, 1.0); 4], 4.0, None);
        assert_eq!(Reward::of(&[&round]), None);
        for (rollout, reward) in round.rollouts.iter_mut().zip([1.0, 0.0, 0.0, 0.0]) {
            rollout.reward = Some(reward);
        }
        let reward = Reward::of(&[&round]).unwrap();
        assert_eq!((reward.mean, reward.rollouts), (0.25, 4));
        assert!((reward.error - (0.1875_f64 / 4.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn speculation_is_told_over_all_rounds_and_what_is_absent_stays_absent() {
        let round = |seconds| round(&[(20, seconds)], seconds, Some(counters()));
        let pairs = [1.0, 3.0].map(|seconds| Pair { direct: None, proxied: Some(round(seconds)) });
        let speculation = Summary::of(&pairs).speculation.unwrap();
        assert_eq!(speculation.acceptance_length, Some(4.0));
        assert_eq!(speculation.acceptance_rate, Some(0.75));
        assert_eq!(speculation.acceptance_by_position, Some(vec![0.9, 0.6, 0.0]));
        assert_eq!((speculation.accepted_share, speculation.decoded_share), (Some(1.5), None));
        let time = TimeShare { rollouts: 4.0, draft: Some(3.0), verify: None, decode: None };
        assert_eq!(speculation.time, time);
    }

    #[test]
    fn without_drafts_there_is_no_acceptance_length() {
        let none = Counters { drafts: Some(0.0), accepted_tokens: Some(0.0), ..Counters::default() };
        let pair = Pair { direct: None, proxied: Some(round(&[(5, 1.0)], 1.0, Some(none))) };
        let speculation = Summary::of(&[pair]).speculation.unwrap();
        assert_eq!((speculation.acceptance_length, speculation.acceptance_by_position), (None, None));
    }
}
