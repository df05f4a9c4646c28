//! The distribution of a position's token, summed over all that can happen.

use std::collections::HashMap;

use sidedraft::speculation::{AcceptanceRule, Draft, Observation, Residual, Row, Sampling, Scored, target};

use super::generate::{DraftLaw, row};

pub fn plain() -> Sampling {
    Sampling::new(1.0, None, 1.0, 0.0).unwrap()
}

/// What the token rule comes to under `rule`: over drafts x ~ q, acceptance, residual weights, and draws from the tail.
pub fn of_token_rule(p: &[f64], law: &DraftLaw, n: usize, rule: &dyn AcceptanceRule) -> Vec<f64> {
    let mut output = vec![0.0; p.len()];
    for (draft, q) in law.drafts() {
        let row = row(p, n, draft.token);
        let known = target(&row, &plain()).unwrap();
        let kept = rule.acceptance(known.probability_of(draft.token).unwrap(), draft.probability_of(draft.token));
        output[draft.token as usize] += q * kept;
        let rejected = q * (1.0 - kept);
        if rejected > 0.0 {
            let outcome = after_rejection(p, &draft, &row, rule, &mut HashMap::new());
            output.iter_mut().zip(outcome).for_each(|(sum, share)| *sum += rejected * share);
        }
    }
    output
}

/// What follows a rejection: the residual of what `row` tells, and for its tail what the server draws outside. A drawn
/// token that is not kept becomes part of what is known, and the residual is drawn from anew. `seen` has the outcomes of
/// rows that were met before, by the set of their ids.
fn after_rejection(
    p: &[f64],
    draft: &Draft,
    row: &Row,
    rule: &dyn AcceptanceRule,
    seen: &mut HashMap<u64, Vec<f64>>,
) -> Vec<f64> {
    let ids = row.entries().iter().fold(0_u64, |set, entry| set | 1 << entry.token);
    if let Some(outcome) = seen.get(&ids) {
        return outcome.clone();
    }
    let mut output = vec![0.0; p.len()];
    let known = target(row, &plain()).unwrap();
    let residual = Residual::new(draft, &known, rule);
    let total: f64 = residual.listed.iter().map(|(_, weight)| weight).sum::<f64>() + residual.tail;
    if total <= 0.0 {
        output[draft.token as usize] = 1.0;
        return output;
    }
    for (id, weight) in &residual.listed {
        output[*id as usize] += weight / total;
    }
    let outside: Vec<usize> = (0..p.len()).filter(|id| row.logprob(*id as u32).is_none()).collect();
    let mass: f64 = outside.iter().map(|id| p[*id]).sum();
    if residual.tail > 0.0 && mass > 0.0 {
        for id in outside {
            let drawn = residual.tail / total * p[id] / mass;
            let kept = rule.tail_acceptance(p[id], draft.probability_of(id as u32));
            output[id] += drawn * kept;
            let again = drawn * (1.0 - kept);
            if again > 0.0 {
                let mut learnt = row.clone();
                learnt.learn(&Scored { token: id as u32, logprob: p[id].ln(), rank: None, top: Vec::new() });
                let rest = after_rejection(p, draft, &learnt, rule, seen);
                output.iter_mut().zip(rest).for_each(|(sum, share)| *sum += again * share);
            }
        }
    }
    seen.insert(ids, output.clone());
    output
}

/// What the match rule comes to: over drafts x ~ q and the server's own samples y ~ p.
pub fn of_match_rule(p: &[f64], law: &DraftLaw) -> Vec<f64> {
    use sidedraft::speculation::Verdict;
    let mut output = vec![0.0; p.len()];
    for (draft, q) in law.drafts() {
        for (token, chance) in (0u32..).zip(p) {
            let sampled = Observation::Sampled(Scored { token, logprob: chance.ln(), rank: None, top: Vec::new() });
            let mut unused = super::decisions::Script::new(&[]);
            let token = match super::decisions::judge().draft(&draft, sampled, &mut unused) {
                Verdict::Keep(kept) => {
                    assert_eq!(kept.token, draft.token);
                    kept.token
                }
                Verdict::Token(scored) => scored.token,
                other => panic!("a sample decides: {other:?}"),
            };
            output[token as usize] += q * chance;
        }
    }
    output
}

/// The largest difference.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
