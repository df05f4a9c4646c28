//! What the device draws has the distribution that it reports.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::sampling::{draws, wide};
use super::{Rig, shapes};
use crate::model::backend::{Feed, Outcome, PageId, Then};
use crate::model::sample::{DraftSampling, DraftedToken};
use crate::model::stats::g_test;
use crate::speculation::TokenId;

const DRAWS: usize = 1000;
/// With fixed seeds, a test that holds holds for good.
const LEAST: f64 = 1e-3;
/// What planted faults stay below.
const REFUTED: f64 = 1e-9;

type Q = Vec<(TokenId, f64)>;

fn probabilities(q: &Q) -> Vec<f64> {
    q.iter().map(|(_, q)| *q).collect()
}

/// How often each id of the reported q was drawn, with these uniform numbers; every draw reports the same.
fn counts(logits: &[f32], sampling: &DraftSampling, uniforms: impl Iterator<Item = f64>) -> (Vec<u64>, Q) {
    let rows: Vec<_> = uniforms.map(|uniform| (logits.to_vec(), sampling.clone(), uniform)).collect();
    let drawn: Vec<DraftedToken> = draws(&rows, 1).into_iter().map(Option::unwrap).collect();
    let q = drawn[0].distribution.clone().unwrap();
    let mut counts = vec![0; q.len()];
    for draft in &drawn {
        assert_eq!(draft.distribution.as_ref(), Some(&q));
        counts[q.iter().position(|(id, _)| *id == draft.token).expect("a draw from q")] += 1;
    }
    (counts, q)
}

fn uniforms(seed: u64) -> impl Iterator<Item = f64> {
    StdRng::seed_from_u64(seed).random_iter().take(DRAWS)
}

/// Logits of which a few matter, in both slices of the vocabulary.
fn uneven() -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(21);
    wide(|id| rng.random_range(-1.0..1.0) + if id % 160 == 3 { 3.0 } else { 0.0 })
}

/// Ties among those that are listed, and between the last of them and ids that are not.
fn tied() -> Vec<f32> {
    wide(|id| if id % 100 == 40 { 2.0 } else { (id % 3) as f32 - 1.0 })
}

fn sampling(temperature: f64, top_m: usize, usable_vocabulary: usize) -> DraftSampling {
    DraftSampling { top_m, usable_vocabulary, ..DraftSampling::new(1, temperature) }
}

#[test]
fn draws_have_the_distribution_that_is_reported_at_every_temperature_with_ties_and_restricted_ids() {
    for (seed, (logits, sampling)) in [
        (uneven(), sampling(1.0, 32, usize::MAX)),
        (uneven(), sampling(0.4, 32, usize::MAX)),
        (uneven(), sampling(2.5, 32, usize::MAX)),
        (uneven(), sampling(1.0, 5, usize::MAX)),
        (uneven(), sampling(0.8, 32, 500)),
        (tied(), sampling(1.0, 32, usize::MAX)),
        (tied(), sampling(1.3, 7, 640)),
    ]
    .into_iter()
    .enumerate()
    {
        let (counts, q) = counts(&logits, &sampling, uniforms(seed as u64));
        assert_eq!(q.len(), sampling.top_m);
        assert!(q.iter().all(|(id, _)| (*id as usize) < sampling.usable_vocabulary));
        assert!((probabilities(&q).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let test = g_test(&counts, &probabilities(&q));
        assert!(test.dof > 3 && test.p_value > LEAST, "{sampling:?}: {test:?}");
    }
}

#[test]
fn greedy_draws_are_a_point_mass() {
    let rows: Vec<_> = uniforms(1).take(20).map(|uniform| (tied(), sampling(0.0, 32, usize::MAX), uniform)).collect();
    for draft in draws(&rows, 1) {
        let draft = draft.unwrap();
        assert_eq!((draft.token, draft.distribution), (40, None));
    }
}

#[test]
fn a_biased_draw_and_a_q_of_another_temperature_are_refuted() {
    let fair = sampling(1.0, 8, usize::MAX);
    let p_value = |counts: &[u64], q: &Q| g_test(counts, &probabilities(q)).p_value;
    // The same draws pass the test that their faulty kin fail.
    let (straight, q) = counts(&uneven(), &fair, uniforms(30));
    assert!(p_value(&straight, &q) > LEAST);
    let (skewed, q) = counts(&uneven(), &fair, uniforms(30).map(|uniform| uniform.powf(1.5)));
    assert!(p_value(&skewed, &q) < REFUTED);
    let (short, q) = counts(&uneven(), &fair, uniforms(30).map(|uniform| uniform * 0.9));
    assert!(p_value(&short, &q) < REFUTED);
    let (_, warmer) = counts(&uneven(), &sampling(3.0, 8, usize::MAX), uniforms(30).take(1));
    assert!(warmer.iter().map(|(id, _)| id).eq(q.iter().map(|(id, _)| id)));
    assert!(p_value(&straight, &warmer) < REFUTED);
}

const BATCH: usize = 64;

/// Pairs of drafts of a graph of two steps: how often each came, and the product of their reported probabilities.
fn pairs(rounds: usize) -> (Vec<u64>, Vec<f64>) {
    let weights = shapes::tiny_llama();
    let mut rig = Rig::new(&weights, false);
    let sampling = DraftSampling { top_m: 3, ..DraftSampling::new(2, 1.5) };
    let pages: Vec<[PageId; 1]> = (0..BATCH as PageId).map(|page| [page]).collect();
    let (mut counts, mut joint) = ([[0; 3]; 3], [[0.0; 3]; 3]);
    for _ in 0..rounds {
        let then = Then::Draft { sampling: &sampling, at_most: 2 };
        let feeds: Vec<_> = pages.iter().map(|pages| Feed { pages, start: 0, tokens: &[7], then }).collect();
        for outcome in rig.step(&feeds) {
            let Outcome::Drafts(drafts) = outcome else { panic!("no drafts") };
            let drawn = |draft: &DraftedToken| {
                let q = draft.distribution.as_ref().unwrap();
                q.iter().position(|(id, _)| *id == draft.token).unwrap()
            };
            let (first, second) = (drawn(&drafts[0]), drawn(&drafts[1]));
            counts[first][second] += 1;
            for (index, (_, q)) in drafts[1].distribution.as_ref().unwrap().iter().enumerate() {
                joint[first][index] = drafts[0].distribution.as_ref().unwrap()[first].1 * q;
            }
        }
    }
    (counts.concat(), joint.concat())
}

#[test]
fn drafts_of_a_graph_are_drawn_independently_of_each_other() {
    let (counts, joint) = pairs(24);
    assert!((joint.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{joint:?}");
    let test = g_test(&counts, &joint);
    assert!(test.dof == 8 && test.p_value > LEAST, "{test:?}: {counts:?}");
    // One number for both steps would give only pairs that are alike.
    let total: u64 = counts.iter().sum();
    let alike: Vec<u64> = (0..9).map(|pair| if pair % 4 == 0 { total / 3 } else { 0 }).collect();
    assert!(g_test(&alike, &joint).p_value < REFUTED);
}
