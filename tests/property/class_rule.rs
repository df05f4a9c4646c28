//! The class rule leaves the target's distribution as it is, whatever either row lists; and rules that are not lossless,
//! or classes that depend on the draft, do not.

use std::sync::Arc;

use proptest::prelude::*;
use sidedraft::speculation::{
    AcceptanceRule, Classes, Draft, DraftDistribution, Entry, Judge, Lossless, Observation, Residual, Row, Sampling,
    Scored, TailVerdict, Verdict, above_border, target,
};

use super::brute_force;
use super::decisions::Script;
use super::generate::{distribution, row};
use super::output::{distance, plain};
use super::support::planted::{AcceptAll, NothingSubtracted};
use super::target::{parameters, raw, sampling};

/// What is kept of the row of `token`, which was drawn from `q`: nothing that depends on it.
pub fn kept(q: &[f64], n: usize, token: u32) -> Vec<Entry> {
    above_border(row(q, n, token).top()).to_vec()
}

pub fn draft_of(entries: &[Entry], token: u32) -> Draft {
    let listed = entries.iter().map(|entry| (entry.token, entry.logprob.exp())).collect();
    Draft::new(token, DraftDistribution::Partial(listed))
}

fn listed(draft: &Draft) -> &[(u32, f64)] {
    match &draft.q {
        DraftDistribution::Partial(listed) => listed,
        other => panic!("{other:?}"),
    }
}

/// One position: what is sampled from, what a row of its raw distribution lists, and how the client samples.
pub struct Position<'a> {
    pub raw: &'a [f64],
    pub target: &'a [f64],
    pub n: usize,
    pub sampling: Sampling,
    /// Whether the server scores the ids that the old row lists, too.
    pub scores_given_ids: bool,
}

impl Position<'_> {
    /// What the server tells where `draft` stands.
    fn row(&self, draft: &Draft) -> Row {
        let row = row(self.raw, self.n, draft.token);
        if !self.scores_given_ids {
            return row;
        }
        let entry = |(id, _): &(u32, f64)| Entry { token: *id, logprob: self.raw[*id as usize].ln() };
        row.with_all_listed(listed(draft).iter().map(entry)).unwrap()
    }

    /// The distribution of the position's token where `token` was drafted, summed over all that can happen; `None` where
    /// the row does not tell the target.
    pub fn output(&self, draft: &Draft, rule: &dyn AcceptanceRule) -> Option<Vec<f64>> {
        let mut output = vec![0.0; self.raw.len()];
        let row = self.row(draft);
        let known = target(&row, &self.sampling)?;
        let classes = Classes::new(listed(draft), &row, &self.sampling, &known);
        let acceptance = classes.acceptance(draft.token, rule).unwrap();
        self.token_of(classes.class_of(draft.token), &classes, &row, draft, acceptance, &mut output);
        let residual = classes.residual(rule);
        for (class, share) in shares(&residual, draft.token) {
            self.token_of(class, &classes, &row, draft, (1.0 - acceptance) * share, &mut output);
        }
        Some(output)
    }

    /// Adds `mass` where the token of a class comes from: itself, or p outside K, first among what the row tells.
    fn token_of(&self, class: Option<u32>, classes: &Classes, row: &Row, draft: &Draft, mass: f64, output: &mut [f64]) {
        if let Some(id) = class {
            output[id as usize] += mass;
            return;
        }
        for (id, share) in shares(classes.outside(), draft.token) {
            if let Some(id) = id {
                output[id as usize] += mass * share;
                continue;
            }
            let outside = || (0..self.raw.len()).filter(|id| row.logprob(*id as u32).is_none());
            let tail: f64 = outside().map(|id| self.raw[id]).sum();
            outside().for_each(|id| output[id] += mass * share * self.raw[id] / tail);
        }
    }

    /// The output over all drafts from `q`, as [`draft_of`] what `kept` keeps of their rows.
    fn total(
        &self,
        q: &[f64],
        kept: impl Fn(&[f64], u32) -> Vec<Entry>,
        rule: &dyn AcceptanceRule,
    ) -> Option<Vec<f64>> {
        let mut total = vec![0.0; self.raw.len()];
        for (token, chance) in (0_u32..).zip(q) {
            let draft = draft_of(&kept(q, token), token);
            let output = self.output(&draft, rule)?;
            total.iter_mut().zip(output).for_each(|(sum, share)| *sum += chance * share);
        }
        Some(total)
    }
}

/// What `at` comes to over a uniform quantile.
fn shares(residual: &Residual, fallback: u32) -> Vec<(Option<u32>, f64)> {
    let total: f64 = residual.listed.iter().map(|(_, weight)| weight).sum::<f64>() + residual.tail;
    if total <= 0.0 {
        return vec![(Some(fallback), 1.0)];
    }
    let listed = residual.listed.iter().map(|(id, weight)| (Some(*id), weight / total));
    let tail = (residual.tail > 0.0).then_some((None, residual.tail / total));
    listed.chain(tail).collect()
}

pub fn untruncated(p: &[f64], n: usize) -> Position<'_> {
    Position { raw: p, target: p, n, sampling: plain(), scores_given_ids: false }
}

/// An old and a new distribution: unrelated, one that moved a little, or with as many exact ties as there are.
fn laws() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    let unrelated = (2..=12_usize).prop_flat_map(|size| (distribution(size), distribution(size)));
    let moved = (2..=12_usize).prop_flat_map(|size| (distribution(size), distribution(size), 1e-4..0.3_f64)).prop_map(
        |(q, noise, share)| {
            let p = q.iter().zip(&noise).map(|(q, noise)| (1.0 - share) * q + share * noise).collect();
            (q, p)
        },
    );
    let tied = (raw(), any::<proptest::sample::Index>()).prop_map(|(q, by)| {
        let mut p = q.clone();
        p.rotate_left(by.index(q.len()));
        (q, p)
    });
    prop_oneof![unrelated, moved, tied]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_output_is_distributed_as_the_target(
        (q, p) in laws(), old in 0..=13_usize, new in 0..=13_usize, scores_given_ids in any::<bool>(),
    ) {
        let position = Position { scores_given_ids, ..untruncated(&p, new) };
        let output = position.total(&q, |q, token| kept(q, old, token), &Lossless).unwrap();
        prop_assert!(distance(&output, &p) < 1e-12, "{output:?} instead of {p:?}");
    }

    #[test]
    fn so_it_is_where_the_client_truncates(
        (q, p) in laws(), old in 0..=13_usize, new in 0..=13_usize, parameters in parameters(), scores_given_ids in any::<bool>(),
    ) {
        let target = brute_force::distribution(&p, parameters);
        let position = Position { raw: &p, target: &target, n: new, sampling: sampling(parameters), scores_given_ids };
        if let Some(output) = position.total(&q, |q, token| kept(q, old, token), &Lossless) {
            prop_assert!(distance(&output, position.target) < 1e-9, "{output:?} instead of {target:?}");
        }
    }

    /// An old rollout that was itself truncated, or not known at all.
    #[test]
    fn an_old_row_tells_what_was_drawn_from_or_that_it_cannot(
        q in raw(), n in 1..=13_usize, parameters in parameters(),
    ) {
        let expected = brute_force::distribution(&q, parameters);
        let row = Row::new(row(&q, n, 0).top().to_vec(), n).unwrap();
        for (token, chance) in (0_u32..).zip(&expected).filter(|(_, chance)| **chance > 0.0) {
            let draft = Draft::new(token, DraftDistribution::of_row(&row, &sampling(parameters), token));
            match &draft.q {
                DraftDistribution::PointMass => prop_assert!(target(&row, &sampling(parameters)).is_none()),
                DraftDistribution::Listed(list) => {
                    prop_assert!((draft.probability_of(token) - chance).abs() < 1e-9);
                    prop_assert!((list.iter().map(|(_, q)| q).sum::<f64>() - 1.0).abs() < 1e-9);
                    prop_assert!(list.iter().all(|(id, q)| (q - expected[*id as usize]).abs() < 1e-9));
                }
                DraftDistribution::Partial(list) => {
                    prop_assert!(sampling(parameters).is_raw());
                    prop_assert!(list.iter().all(|(id, p)| (p - q[*id as usize]).abs() < 1e-9));
                }
            }
        }
    }

    /// All that the old row lists is a class of its own, whatever the new one's top is.
    #[test]
    fn given_ids_are_classes_of_their_own((q, p) in laws(), old in 0..=13_usize, new in 0..=13_usize) {
        let position = Position { scores_given_ids: true, ..untruncated(&p, new) };
        for token in 0..p.len() as u32 {
            let draft = draft_of(&kept(&q, old, token), token);
            let row = position.row(&draft);
            let classes = Classes::new(listed(&draft), &row, &plain(), &target(&row, &plain()).unwrap());
            for id in 0..p.len() as u32 {
                let is_listed = listed(&draft).iter().any(|(other, q)| *other == id && *q > 0.0);
                prop_assert_eq!(classes.class_of(id), is_listed.then_some(id));
            }
        }
    }

    #[test]
    fn a_judge_decides_as_the_classes_say(
        (q, p) in laws(), old in 0..=13_usize, new in 0..=13_usize, u in proptest::array::uniform3(0.0..1.0_f64),
    ) {
        let quantised = u.map(|u| (u * (1_u64 << 53) as f64).floor() / (1_u64 << 53) as f64);
        for token in 0..p.len() as u32 {
            let draft = draft_of(&kept(&q, old, token), token);
            let row = row(&p, new, token);
            let classes = Classes::new(listed(&draft), &row, &plain(), &target(&row, &plain()).unwrap());
            let mut script = quantised.into_iter();
            let is_kept = script.next().unwrap() < classes.acceptance(token, &Lossless).unwrap();
            let class = if is_kept {
                classes.class_of(token)
            } else {
                classes.residual(&Lossless).at(script.next().unwrap(), token)
            };
            let expected = class.or_else(|| classes.outside().at(script.next().unwrap(), token));
            let mut judge = Judge::new(plain(), Arc::new(Lossless));
            match (expected, judge.draft(&draft, Observation::Row(row.clone()), &mut Script::new(&u))) {
                (Some(id), Verdict::Keep(scored)) => {
                    prop_assert!(is_kept && id == token);
                    prop_assert_eq!(scored, row.scored(token).unwrap());
                }
                (Some(id), Verdict::Token(scored)) => {
                    prop_assert!(!is_kept || id != token);
                    prop_assert_eq!(scored, row.scored(id).unwrap());
                }
                (None, Verdict::Outside(left)) => prop_assert_eq!(left, row),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

/// An old policy that was sure of other ids than the new one is.
const OLD: [f64; 6] = [0.05, 0.05, 0.1, 0.1, 0.3, 0.4];
const NEW: [f64; 6] = [0.4, 0.25, 0.15, 0.1, 0.06, 0.04];

#[test]
fn rows_without_a_common_id_are_exact_too() {
    let output = untruncated(&NEW, 3).total(&OLD, |q, token| kept(q, 3, token), &Lossless).unwrap();
    assert!(distance(&output, &NEW) < 1e-12);
}

/// SPEC-RL draws from the target after a rejection.
#[test]
fn rules_that_are_not_lossless_change_the_output() {
    let (old, new) = ([0.6, 0.2, 0.15, 0.05], [0.2, 0.6, 0.15, 0.05]);
    let error = |rule: &dyn AcceptanceRule| {
        let output = untruncated(&new, 4).total(&old, |q, token| kept(q, 4, token), rule).unwrap();
        distance(&output, &new)
    };
    assert!(error(&Lossless) < 1e-12);
    assert!(error(&NothingSubtracted) > 0.05);
    assert!(error(&AcceptAll) > 0.05);
}

/// The same bug where the old row's ids are scored, and one more: which ids are given must not depend on the draft.
#[test]
fn wrong_rules_and_ids_change_the_output_of_given_ids_too() {
    let (old, new) = ([0.6, 0.2, 0.15, 0.05], [0.2, 0.6, 0.15, 0.05]);
    let given = Position { scores_given_ids: true, ..untruncated(&new, 2) };
    let error = |kept: &dyn Fn(&[f64], u32) -> Vec<Entry>, rule: &dyn AcceptanceRule| {
        distance(&given.total(&old, kept, rule).unwrap(), &new)
    };
    let by_row = |q: &[f64], token: u32| kept(q, 4, token);
    assert!(error(&by_row, &Lossless) < 1e-12);
    assert!(error(&by_row, &NothingSubtracted) > 0.05);
    let with_token = |q: &[f64], token: u32| row(q, 2, token).entries().to_vec();
    let position = Position { scores_given_ids: true, ..untruncated(&NEW, 2) };
    assert!(distance(&position.total(&OLD, with_token, &Lossless).unwrap(), &NEW) > 0.01);
}

#[test]
fn an_old_row_that_lists_its_token_from_below_the_top_changes_the_output() {
    let with_token = |q: &[f64], token: u32| row(q, 2, token).entries().to_vec();
    let output = untruncated(&NEW, 6).total(&OLD, with_token, &Lossless).unwrap();
    assert!(distance(&output, &NEW) > 0.01);
}

/// The server lists one of two equals, and the other's own row lists that one instead.
#[test]
fn a_top_whose_border_ties_changes_the_output() {
    let old = [0.5, 0.2, 0.2, 0.1];
    let new = [0.4, 0.4, 0.1, 0.1];
    let whole = |q: &[f64], token: u32| row(q, 2, token).top().to_vec();
    let error = |kept: &dyn Fn(&[f64], u32) -> Vec<Entry>| {
        distance(&untruncated(&new, 4).total(&old, kept, &Lossless).unwrap(), &new)
    };
    assert!(error(&whole) > 0.01);
    assert!(error(&|q, token| kept(q, 2, token)) < 1e-12);
}

#[test]
fn a_draft_that_its_own_distribution_rules_out_is_judged_as_a_point_mass() {
    let draft = Draft::new(2, DraftDistribution::Partial(vec![(0, 1.0)]));
    let row = row(&NEW, 4, 2);
    let verdict = |u: &[f64]| {
        let mut judge = Judge::new(plain(), Arc::new(Lossless));
        judge.draft(&draft, Observation::Row(row.clone()), &mut Script::new(u))
    };
    assert_eq!(verdict(&[0.14]), Verdict::Keep(row.scored(2).unwrap()));
    assert_eq!(verdict(&[0.16, 0.1]), Verdict::Token(row.scored(0).unwrap()));
}

#[test]
fn what_the_server_draws_outside_is_the_token_unless_it_was_banned() {
    let draft = draft_of(&kept(&OLD, 3, 5), 5);
    let mut judge = Judge::new(plain(), Arc::new(Lossless));
    let mut row = row(&NEW, 2, 5);
    let mut drawn = |token: u32| {
        let scored = Scored { token, logprob: NEW[token as usize].ln(), rank: None, top: Vec::new() };
        judge.tail(&draft, &mut row, &scored, &mut Script::new(&[]))
    };
    assert_eq!(drawn(3), TailVerdict::Keep);
    assert_eq!(drawn(0), TailVerdict::Again);
}
