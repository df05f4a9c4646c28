//! What the loop over a proposal's positions allocates once its memory has grown: nothing.
//!
//! Its rows were allocated when the reply was read, and the list of a kept one goes on with the token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use allocation_counter::measure;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sidedraft::speculation::{
    Draft, DraftDistribution, Entry, Judge, Lossless, Observation, Row, Sampling, Scored, Verdict,
};

/// Ids in a row.
const LISTED: u32 = 20;
/// Positions of a round.
const POSITIONS: u32 = 8;

/// What one reply brings: a row for each draft.
type Round = Vec<(Draft, Observation)>;

/// Twice as likely each as the next, the draft somewhere among them.
fn row() -> Row {
    let entry = |token| Entry { token, logprob: -f64::from(token + 1) * std::f64::consts::LN_2 };
    Row::new((0..LISTED).map(entry).collect(), LISTED as usize).unwrap()
}

fn rounds(count: usize, draft: impl Fn(u32) -> Draft) -> Vec<Round> {
    let round = |_| (0..POSITIONS).map(|at| (draft(at), Observation::Row(row()))).collect();
    (0..count).map(round).collect()
}

/// How many allocations judging these takes, and what came out: kept, replaced, from outside of the row.
fn judged(judge: &mut Judge, rng: &mut StdRng, rounds: Vec<Round>, out: &mut Vec<Scored>) -> (u64, [usize; 3]) {
    let mut seen = [0; 3];
    let allocations = measure(|| {
        for round in rounds {
            for (draft, observation) in round {
                match judge.draft(&draft, observation, rng) {
                    Verdict::Keep(scored) => {
                        seen[0] += 1;
                        out.push(scored);
                    }
                    Verdict::Token(scored) => {
                        seen[1] += 1;
                        out.push(scored);
                    }
                    Verdict::Outside(_) => seen[2] += 1,
                    Verdict::Sample => panic!("the row tells all"),
                }
            }
        }
    });
    (allocations.count_total, seen)
}

/// Allocations of a first round and of a hundred others.
fn measured(sampling: Sampling, draft: impl Fn(u32) -> Draft) -> (u64, u64, [usize; 3]) {
    let mut judge = Judge::new(sampling, Arc::new(Lossless));
    let mut rng = StdRng::seed_from_u64(5);
    let mut out = Vec::with_capacity(200 * POSITIONS as usize);
    let (warming, _) = judged(&mut judge, &mut rng, rounds(20, &draft), &mut out);
    let (after, seen) = judged(&mut judge, &mut rng, rounds(100, &draft), &mut out);
    (warming, after, seen)
}

#[test]
fn greedy_judging_allocates_nothing_after_the_first_rounds() {
    let (_, after, seen) = measured(Sampling::greedy(), |at| Draft::certain(u32::from(at == POSITIONS - 1)));
    assert_eq!(after, 0);
    assert_eq!(seen, [700, 100, 0], "the last draft of each round is wrong");
}

#[test]
fn judging_drawn_drafts_allocates_nothing_after_the_first_rounds() {
    let raw = Sampling::new(1.0, None, 1.0, 0.0).unwrap();
    let even = |at: u32| {
        let q = (0..LISTED).map(|id| (id, 1.0 / f64::from(LISTED))).collect();
        Draft::new(at, DraftDistribution::Listed(q))
    };
    let (warming, after, [kept, replaced, _]) = measured(raw, even);
    assert!(warming > 0, "the counter counts");
    assert_eq!(after, 0);
    assert!(kept > 100 && replaced > 100, "{kept} kept, {replaced} replaced");
}

#[test]
fn judging_at_another_temperature_with_truncation_allocates_nothing_after_the_first_rounds() {
    let truncated = Sampling::new(0.7, Some(10), 0.9, 0.01).unwrap();
    let (_, after, [kept, replaced, _]) = measured(truncated, |at| Draft::certain(at % 3));
    assert_eq!(after, 0);
    assert!(kept > 100 && replaced > 100, "{kept} kept, {replaced} replaced");
}
