//! The ratio of two arms, from pairs of rounds only.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::record::{Arm, Pair, Round};
use super::stats::Spread;

/// Why there is no ratio.
#[derive(Debug, Clone, PartialEq, Error)]
pub(super) enum Unpaired {
    #[error("only the {} server was measured", .0.name())]
    OneArm(Arm),
    #[error("nothing was measured")]
    Nothing,
    #[error("round {round} of the {} arm is void: {why}", .arm.name())]
    Void { arm: Arm, round: usize, why: String },
    #[error("round {0} of an arm is missing")]
    Missing(usize),
    #[error("the arms of round {0} had different rollouts")]
    Different(usize),
}

/// A ratio, proxied to direct, of each pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ratio {
    pub pairs: Vec<f64>,
    #[serde(flatten)]
    pub spread: Spread,
}

/// How the arms compare, or why that cannot be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Comparison {
    Paired {
        /// Of tokens per second.
        speed: Ratio,
        /// Of the time until the last rollout ends.
        makespan: Ratio,
    },
    Unpaired {
        no_ratio: String,
    },
}

/// Compares the arms pair by pair. One void round leaves no ratio at all: to drop the pairs that failed would keep those
/// in which both happened to be well.
pub(super) fn compare(pairs: &[Pair]) -> Comparison {
    match paired(pairs).and_then(|rounds| {
        let speed = rounds.iter().map(|(direct, proxied)| proxied.tokens_per_second() / direct.tokens_per_second());
        let makespan = rounds.iter().map(|(direct, proxied)| proxied.seconds / direct.seconds);
        Ok(Comparison::Paired { speed: ratio(speed.collect())?, makespan: ratio(makespan.collect())? })
    }) {
        Ok(comparison) => comparison,
        Err(error) => Comparison::Unpaired { no_ratio: error.to_string() },
    }
}

fn ratio(pairs: Vec<f64>) -> Result<Ratio, Unpaired> {
    let spread = Spread::of(&pairs).ok_or(Unpaired::Nothing)?;
    Ok(Ratio { pairs, spread })
}

fn paired(pairs: &[Pair]) -> Result<Vec<(&Round, &Round)>, Unpaired> {
    for (arm, other) in [(Arm::Direct, Arm::Proxied), (Arm::Proxied, Arm::Direct)] {
        if pairs.iter().any(|pair| pair.of(arm).is_some()) && pairs.iter().all(|pair| pair.of(other).is_none()) {
            return Err(Unpaired::OneArm(arm));
        }
    }
    let rounds = pairs.iter().enumerate().map(|(index, pair)| {
        let round = index + 1;
        let sound = |arm| {
            let measured = pair.of(arm).ok_or(Unpaired::Missing(round))?;
            match &measured.void {
                Some(why) => Err(Unpaired::Void { arm, round, why: why.clone() }),
                None => Ok(measured),
            }
        };
        let (direct, proxied) = (sound(Arm::Direct)?, sound(Arm::Proxied)?);
        let lines = |round: &Round| round.rollouts.iter().map(|rollout| rollout.line).collect::<Vec<_>>();
        if lines(direct) == lines(proxied) { Ok((direct, proxied)) } else { Err(Unpaired::Different(round)) }
    });
    rounds.collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{Outcome, Rollout};
    use super::*;

    fn round(tokens: u64, seconds: f64) -> Round {
        let outcome = Outcome::Done { tokens, prompt_tokens: None, finish: None };
        let rollout = Rollout { line: 1, group: None, started: 0.0, seconds, first: None, reward: None, outcome };
        Round { started: 0.0, seconds, cache_salt: None, rollouts: vec![rollout], counters: None, void: None }
    }

    fn pair(direct: Round, proxied: Round) -> Pair {
        Pair { direct: Some(direct), proxied: Some(proxied) }
    }

    fn refusal(pairs: &[Pair]) -> String {
        match compare(pairs) {
            Comparison::Unpaired { no_ratio } => no_ratio,
            Comparison::Paired { .. } => panic!("a ratio from {pairs:?}"),
        }
    }

    #[test]
    fn the_ratio_is_the_median_over_pairs_not_the_ratio_of_medians() {
        // The machine slows down fourfold from pair to pair, the proxied arm is 1.5, 2 and 2.5 times as fast in them.
        let pairs = [
            pair(round(100, 1.0), round(150, 1.0)),
            pair(round(100, 4.0), round(200, 4.0)),
            pair(round(100, 16.0), round(250, 16.0)),
        ];
        let Comparison::Paired { speed, makespan } = compare(&pairs) else { panic!() };
        assert_eq!(speed.pairs, [1.5, 2.0, 2.5]);
        assert_eq!((speed.spread.median, speed.spread.min, speed.spread.max), (2.0, 1.5, 2.5));
        assert_eq!(makespan.pairs, [1.0, 1.0, 1.0]);
    }

    #[test]
    fn one_void_round_leaves_no_ratio() {
        let void = Round { void: Some("2 of 4 rollouts failed".into()), ..round(100, 1.0) };
        let sound = pair(round(100, 1.0), round(100, 1.0));
        assert_eq!(
            refusal(&[sound.clone(), pair(round(100, 1.0), void.clone())]),
            "round 2 of the proxied arm is void: 2 of 4 rollouts failed"
        );
        assert!(refusal(&[pair(void, round(100, 1.0)), sound]).starts_with("round 1 of the direct arm is void"));
    }

    #[test]
    fn one_arm_leaves_no_ratio() {
        let direct = Pair { direct: Some(round(1, 1.0)), proxied: None };
        let proxied = Pair { direct: None, proxied: Some(round(1, 1.0)) };
        assert_eq!(refusal(std::slice::from_ref(&direct)), "only the direct server was measured");
        assert_eq!(refusal(std::slice::from_ref(&proxied)), "only the proxied server was measured");
        assert_eq!(refusal(&[direct, proxied]), "round 1 of an arm is missing");
        assert_eq!(refusal(&[]), "nothing was measured");
    }

    #[test]
    fn rounds_of_different_rollouts_are_no_pair() {
        let mut other = round(1, 1.0);
        other.rollouts[0].line = 2;
        assert_eq!(refusal(&[pair(round(1, 1.0), other)]), "the arms of round 1 had different rollouts");
    }
}
