//! A whole rollout beside an old one, all outcomes summed: wherever the two part, each old token is judged at its own place
//! by the row that it was drawn from, and what comes out is distributed as the new policy.

use proptest::prelude::*;
use sidedraft::speculation::{Draft, Entry, Lossless};

use super::class_rule::{Position, draft_of, kept, untruncated};
use super::generate::distribution;

/// Tokens of the language, and of a rollout.
const TOKENS: usize = 3;
const LENGTH: usize = 3;

/// What a policy says after each prefix of up to two tokens, in the order of [`number`].
type Law = Vec<Vec<f64>>;

/// The place of a prefix among all.
fn number(prefix: &[u32]) -> usize {
    prefix.iter().fold(0, |number, token| number * TOKENS + *token as usize + 1)
}

fn laws() -> impl Strategy<Value = Law> {
    prop::collection::vec(distribution(TOKENS), number(&[2, 2]) + 1)
}

/// Every text of a rollout's length.
fn texts() -> impl Iterator<Item = [u32; LENGTH]> {
    const ALL: u32 = TOKENS as u32;
    (0..ALL.pow(LENGTH as u32)).map(|number| [number / ALL.pow(2), number / ALL % ALL, number % ALL])
}

fn chance(law: &Law, text: &[u32]) -> f64 {
    (0..text.len()).map(|at| law[number(&text[..at])][text[at] as usize]).product()
}

/// What is proposed in an old token's place, which is the last of `old`; `rest` are those after it.
type Proposing = fn(&Situation<'_>) -> Option<Draft>;

struct Situation<'a> {
    /// The distribution that the last of `old` was drawn from, and how much of it is kept.
    drawn_from: &'a [f64],
    listed: usize,
    old: &'a [u32],
    rest: &'a [u32],
}

/// The old token with its row, whatever became of those before it.
fn faithful(at: &Situation<'_>) -> Option<Draft> {
    let token = *at.old.last().unwrap();
    Some(draft_of(&kept(at.drawn_from, at.listed, token), token))
}

/// Chances of all texts of a rollout of `new` to which the old rollouts of `old` are proposed.
fn outputs(old: &Law, new: &Law, listed: usize, row: usize, given: bool, propose: Proposing) -> Vec<f64> {
    let mut outputs = vec![0.0; number(&[2, 2, 2]) + 1];
    for text in texts() {
        let mut reached = vec![(Vec::new(), chance(old, &text))];
        for at in 0..LENGTH {
            let situation =
                Situation { drawn_from: &old[number(&text[..at])], listed, old: &text[..=at], rest: &text[at + 1..] };
            let draft = propose(&situation);
            reached = reached
                .into_iter()
                .flat_map(|(prefix, mass)| next(new, &prefix, mass, row, given, draft.as_ref()))
                .collect();
        }
        for (prefix, mass) in reached {
            outputs[number(&prefix)] += mass;
        }
    }
    outputs
}

/// Each token that may follow a prefix, with its part of the mass.
fn next(new: &Law, prefix: &[u32], mass: f64, row: usize, given: bool, draft: Option<&Draft>) -> Vec<(Vec<u32>, f64)> {
    let p = &new[number(prefix)];
    let position = Position { scores_given_ids: given, ..untruncated(p, row) };
    let output = draft.map_or_else(|| p.clone(), |draft| position.output(draft, &Lossless).unwrap());
    (0_u32..).zip(output).map(|(token, share)| ([prefix, &[token]].concat(), mass * share)).collect()
}

/// The largest difference to what the policy itself would say.
fn error(new: &Law, outputs: &[f64]) -> f64 {
    texts().map(|text| (outputs[number(&text)] - chance(new, &text)).abs()).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_rollout_beside_an_old_one_is_distributed_as_its_policy(
        old in laws(), new in laws(), listed in 0..=TOKENS, row in 1..=TOKENS, given in any::<bool>(),
    ) {
        let outputs = outputs(&old, &new, listed, row, given, faithful);
        prop_assert!(error(&new, &outputs) < 1e-12);
    }
}

fn uneven(by: usize) -> Law {
    let rows = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.05, 0.15, 0.8]];
    (0..=number(&[2, 2])).map(|at| rows[(by + 3 * at) % rows.len()].to_vec()).collect()
}

#[test]
fn whoever_looks_at_old_tokens_that_are_still_to_be_judged_changes_the_output() {
    /// No proposal where the old token would be the last of the ids.
    fn choosy(at: &Situation<'_>) -> Option<Draft> {
        faithful(at).filter(|draft| draft.token != 2)
    }
    /// It goes on only where more than this token is left of the old text before its first last id.
    fn by_what_is_left(at: &Situation<'_>) -> Option<Draft> {
        faithful(at).filter(|_| at.rest.first() != Some(&2))
    }
    let (old, new) = (uneven(0), uneven(1));
    let wrong = |propose| error(&new, &outputs(&old, &new, TOKENS, TOKENS, true, propose));
    assert!(wrong(faithful) < 1e-12);
    for propose in [choosy as Proposing, by_what_is_left] {
        assert!(wrong(propose) > 1e-3, "{}", wrong(propose));
    }
}

/// What comes of a point mass does not depend on where that lies.
#[test]
fn one_who_has_read_the_old_text_may_propose_what_comes_next_in_it_for_certain() {
    fn knowing(at: &Situation<'_>) -> Option<Draft> {
        if at.old.len() > 1 {
            return faithful(at);
        }
        let next = Entry { token: at.rest[0], logprob: 0.0 };
        Some(draft_of(&[next], next.token))
    }
    let (old, new) = (uneven(0), uneven(1));
    assert!(error(&new, &outputs(&old, &new, TOKENS, TOKENS, true, knowing)) < 1e-12);
}
