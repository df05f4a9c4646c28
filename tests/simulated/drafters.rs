//! The simulated drafters are right as often as they were told to be, and draft ahead as they were asked to.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sidedraft::draft::{DraftRequest, Drafter};
use sidedraft::speculation::DraftDistribution;
use tokio::time::Instant;

use super::rig::policy;
use super::support::draft_engine::DraftEngine;
use super::support::fake_vllm::{DraftCost, SamplingParams, argmax};
use super::support::simulated_drafters::{Noise, Simulated, mixture};
use super::support::timeline::Timeline;

/// Σ min(p, q): what exact verification accepts of draws from q.
fn overlap(p: &[f64], q: &[(u32, f64)]) -> f64 {
    q.iter().map(|&(id, q)| p[id as usize].min(q)).sum()
}

/// Every context the policy can tell apart.
fn contexts() -> impl Iterator<Item = [u32; 2]> {
    (0..63).flat_map(|a| (0..63).map(move |b| [a, b]))
}

proptest! {
    #[test]
    fn a_mixture_is_a_distribution_with_the_chosen_overlap(
        weights in prop::collection::vec(0.0_f64..8.0, 64),
        acceptance in 0.3_f64..=1.0,
    ) {
        let total: f64 = weights.iter().map(|weight| weight.exp()).sum();
        let p: Vec<f64> = weights.iter().map(|weight| weight.exp() / total).collect();
        let q = mixture(&p, acceptance);
        prop_assert!((q.iter().map(|(_, q)| q).sum::<f64>() - 1.0).abs() < 1e-9);
        let reversed = overlap(&p, &mixture(&p, 0.0));
        prop_assert!((overlap(&p, &q) - acceptance.max(reversed)).abs() < 1e-6);
    }
}

#[test]
fn drafts_of_the_policy_are_accepted_as_often_as_was_chosen() {
    let policy = policy();
    let mut rng = StdRng::seed_from_u64(5);
    for (acceptance, temperature) in [(0.85, 1.0), (0.5, 1.0), (0.5, 0.7), (1.0, 1.0), (0.0, 1.0)] {
        let noise = Noise::new(&policy, acceptance);
        let params = SamplingParams { temperature, ..SamplingParams::default() };
        for context in contexts().step_by(29) {
            let draft = noise.draft(&context, temperature, None, &mut rng);
            let DraftDistribution::Listed(q) = draft.q else { panic!("a draw has a distribution") };
            let accepted = overlap(&policy.distribution(&context, &params), &q);
            assert!((accepted - acceptance).abs() < 0.01, "{accepted} for {acceptance} after {context:?}");
        }
    }
}

#[test]
fn greedy_drafts_are_right_as_often_as_was_chosen() {
    let policy = policy();
    let mut rng = StdRng::seed_from_u64(5);
    for acceptance in [0.0, 0.5, 0.85, 1.0] {
        let noise = Noise::new(&policy, acceptance);
        let right = contexts()
            .filter(|context| noise.draft(context, 0.0, None, &mut rng).token as usize == argmax(&policy.raw(context)));
        let share = right.count() as f64 / 63.0_f64.powi(2);
        assert!((share - acceptance).abs() < 0.03, "{share} for {acceptance}");
        if acceptance == 0.0 || acceptance == 1.0 {
            assert_eq!(share, acceptance, "an oracle is never wrong, its opposite never right");
        }
    }
}

#[test]
fn the_policy_is_as_sure_of_itself_as_a_trained_one_and_endless() {
    let policy = policy();
    let rows: Vec<Vec<f64>> = contexts().map(|context| policy.raw(&context)).collect();
    let mean = |value: &dyn Fn(&[f64]) -> f64| rows.iter().map(|row| value(row)).sum::<f64>() / rows.len() as f64;
    let entropy = mean(&|row| row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum());
    assert!((0.3..0.7).contains(&entropy), "{entropy} nats");
    let beyond_twenty = mean(&|row| {
        let mut sorted = row.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted[20..].iter().sum()
    });
    assert!(beyond_twenty < 1e-3, "{beyond_twenty} outside of a row");
    assert!(rows.iter().all(|row| row[63] < 1e-12));
}

/// The target's own choices after `context`.
fn chosen(context: &[u32], count: usize) -> Vec<u32> {
    let mut all = context.to_vec();
    (0..count).for_each(|_| all.push(argmax(&policy().raw(&all)) as u32));
    all.split_off(context.len())
}

/// What a greedy proposal after `context` is, and the microseconds that it takes.
async fn proposed(drafter: &mut dyn Drafter, context: &[u32], length: usize) -> (Vec<u32>, u128) {
    let start = Instant::now();
    let request = DraftRequest { temperature: 0.0, ..DraftRequest::new(context, length) };
    let proposal = drafter.propose(request).await.unwrap();
    (proposal.tokens().collect(), start.elapsed().as_micros())
}

#[tokio::test(start_paused = true)]
async fn what_was_drafted_ahead_need_not_be_waited_for_again() {
    let timeline = Timeline::start();
    let engine = DraftEngine::start(DraftCost::h100_8b(), timeline.clone());
    let drafters = Simulated::factory(&policy(), 1.0, engine);
    // The micros that pass before the server's token comes, and those that a proposal of four then takes: the first
    // token drafted ahead is the server's, and one under way is waited for.
    for (passed, takes) in [(3_000, 0), (2_500, 500), (1_300, 1_700), (10_000, 0)] {
        let mut drafter = drafters.drafters().remove(0);
        let context = [3, 4, 5];
        let ahead = DraftRequest { temperature: 0.0, ..DraftRequest::new(&context, 5) };
        drafter.draft_ahead(ahead);
        timeline.pass(Duration::from_micros(passed)).await;
        let all = chosen(&context, 5);
        let going_on = [&context[..], &all[..1]].concat();
        assert_eq!(proposed(&mut *drafter, &going_on, 4).await, (all[1..].to_vec(), takes), "after {passed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_drafted_ahead_after_another_token_is_dropped() {
    let timeline = Timeline::start();
    let engine = DraftEngine::start(DraftCost::h100_8b(), timeline.clone());
    let mut drafter = Simulated::factory(&policy(), 1.0, engine).drafters().remove(0);
    let context = [3, 4, 5];
    drafter.draft_ahead(DraftRequest { temperature: 0.0, ..DraftRequest::new(&context, 5) });
    timeline.pass(Duration::from_micros(3_000)).await;
    let other = [3, 4, 5, (chosen(&context, 1)[0] + 1) % 60];
    assert_eq!(proposed(&mut *drafter, &other, 4).await, (chosen(&other, 4), 2_400));
}
