//! Drafts: drawn on the device, fed to the next step there, reported as they were drawn.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Rig, reference, scattered, shapes};
use crate::model::backend::{Feed, Outcome, PageId, Then};
use crate::model::cuda::device::Device;
use crate::model::cuda::weights::Weights;
use crate::model::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

struct Asked {
    context: Vec<TokenId>,
    /// Tokens of the context that were run before.
    held: usize,
    at_most: usize,
    sampling: DraftSampling,
}

/// Reads what is held, then drafts for all at once.
fn drafts<D: Device>(rig: &mut Rig<D>, asked: &[Asked]) -> Vec<Vec<DraftedToken>> {
    let room = |asked: &Asked| asked.context.len() + asked.at_most;
    let pages: Vec<Vec<PageId>> =
        asked.iter().enumerate().map(|(i, one)| scattered(i, room(one), asked.len())).collect();
    let held = asked.iter().zip(&pages).filter(|(asked, _)| asked.held > 0);
    let feeds: Vec<_> = held
        .map(|(asked, pages)| Feed { pages, start: 0, tokens: &asked.context[..asked.held], then: Then::Nothing })
        .collect();
    rig.step(&feeds);
    let feeds: Vec<_> = asked
        .iter()
        .zip(&pages)
        .map(|(asked, pages)| Feed {
            pages,
            start: asked.held,
            tokens: &asked.context[asked.held..],
            then: Then::Draft { sampling: &asked.sampling, at_most: asked.at_most },
        })
        .collect();
    let outcomes = rig.step(&feeds).into_iter();
    outcomes.map(|outcome| if let Outcome::Drafts(drafts) = outcome { drafts } else { panic!("no drafts") }).collect()
}

/// Each draft's distribution is the model's, of the most likely ids, and the draft one of them.
fn check(weights: &Weights, asked: &Asked, drafts: &[DraftedToken]) {
    assert_eq!(drafts.len(), asked.at_most);
    let mut context = asked.context.clone();
    for draft in drafts {
        let logits = reference::logits(weights, &context).pop().unwrap();
        let usable = asked.sampling.usable_vocabulary.min(logits.len());
        let best = logits[..usable].iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = logits.iter().map(|logit| logit.abs()).fold(0.0, f64::max);
        assert!(logits[draft.token as usize] <= best && (draft.token as usize) < usable);
        match &draft.distribution {
            None => assert!(best - logits[draft.token as usize] < 2e-2 * spread),
            Some(q) => {
                let weight = |id: TokenId| ((logits[id as usize] - best) / asked.sampling.temperature).exp();
                let total: f64 = q.iter().map(|(id, _)| weight(*id)).sum();
                assert_eq!(q.len(), asked.sampling.top_m.min(32));
                assert!((q.iter().map(|(_, q)| q).sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(q.windows(2).all(|pair| pair[0].1 >= pair[1].1));
                assert!(q.iter().all(|(id, q)| (q - weight(*id) / total).abs() < 1e-2), "{q:?}");
                assert!(q.iter().any(|(id, _)| *id == draft.token));
            }
        }
        context.push(draft.token);
    }
}

fn sampled(at_most: usize, temperature: f64, top_m: usize, usable_vocabulary: usize) -> DraftSampling {
    DraftSampling { top_m, usable_vocabulary, ..DraftSampling::new(at_most, temperature) }
}

/// Drafts of sequences that ask for different things follow the model.
pub(super) fn several_sequences_follow<D: Device>(weights: &Weights, rig: &mut Rig<D>) {
    let context = |count, seed| shapes::tokens(count, seed, &weights.config);
    let asked = [
        // Drafts cross into a new page.
        Asked { context: context(14, 1), held: 13, at_most: 4, sampling: sampled(4, 0.0, 32, usize::MAX) },
        Asked { context: context(17, 2), held: 16, at_most: 4, sampling: sampled(4, 1.0, 32, usize::MAX) },
        Asked { context: context(1, 3), held: 0, at_most: 2, sampling: sampled(2, 0.7, 5, 200) },
    ];
    let drafts = drafts(rig, &asked);
    asked.iter().zip(&drafts).for_each(|(asked, drafts)| check(weights, asked, drafts));
}

#[test]
fn drafts_of_several_sequences_follow_the_model() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen2(), shapes::tiny_qwen3()] {
        several_sequences_follow(&weights, &mut Rig::new(&weights, false));
    }
}

#[test]
fn more_than_eight_sequences_draft_together() {
    let weights = shapes::tiny_llama();
    for count in [9, 17] {
        let asked: Vec<_> = (0..count)
            .map(|index| {
                let context = shapes::tokens(1 + index % 5, index as u64, &weights.config);
                Asked { context, held: 0, at_most: 2, sampling: sampled(2, 0.9, 8, usize::MAX) }
            })
            .collect();
        let drafts = drafts(&mut Rig::new(&weights, false), &asked);
        asked.iter().zip(&drafts).for_each(|(asked, drafts)| check(&weights, asked, drafts));
    }
}

#[test]
fn drafts_begin_after_several_new_tokens_or_a_whole_prompt() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen3()] {
        for new in [2, 3, 40, 80] {
            let context = shapes::tokens(new + 5, 7, &weights.config);
            let other = shapes::tokens(6, 8, &weights.config);
            let asked = [
                Asked { context, held: 5, at_most: 3, sampling: sampled(3, 0.8, 32, usize::MAX) },
                Asked { context: other, held: 5, at_most: 3, sampling: sampled(3, 0.0, 32, usize::MAX) },
            ];
            let drafts = drafts(&mut Rig::new(&weights, true), &asked);
            asked.iter().zip(&drafts).for_each(|(asked, drafts)| check(&weights, asked, drafts));
        }
    }
}

#[test]
fn a_draft_is_the_inverse_of_its_uniform_number() {
    let weights = shapes::tiny_llama();
    let sampling = sampled(8, 1.5, 32, usize::MAX);
    let asked = [Asked { context: shapes::tokens(9, 5, &weights.config), held: 0, at_most: 8, sampling }];
    let mut rig = Rig::new(&weights, false);
    rig.rng = StdRng::seed_from_u64(77);
    let mut rng = StdRng::seed_from_u64(77);
    for draft in &drafts(&mut rig, &asked)[0] {
        let uniform: f64 = rng.random();
        let q = draft.distribution.as_ref().unwrap();
        let mut cumulative = 0.0;
        let reached = q.iter().find(|(_, q)| {
            cumulative += q;
            uniform < cumulative
        });
        assert_eq!(draft.token, reached.or(q.last()).unwrap().0);
    }
}

#[test]
fn a_pass_is_recorded_once_and_launches_five_kernels_a_layer() {
    let weights = shapes::tiny_llama();
    let mut rig = Rig::new(&weights, false);
    let asked = || {
        let context = shapes::tokens(1, 5, &weights.config);
        [Asked { context, held: 0, at_most: 4, sampling: sampled(4, 1.0, 32, usize::MAX) }]
    };
    for round in 1..=2 {
        drafts(&mut rig, &asked());
        assert_eq!(rig.engine.device().launches, round * (1 + 4 * (5 * weights.config.layers + 2)));
    }
}
