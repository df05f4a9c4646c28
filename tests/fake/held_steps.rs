//! A control request waits for the steps under way. Were it to throw them away instead, tokens that take long to decide,
//! as those from a row's tail do, would come too seldom.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::told;
use super::exactness::{PROMPT, small_with_short_rows};
use super::rig::{COMPLETIONS, Plan, Rig};
use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, LanguageModel, SamplingParams, argmax};
use super::support::stats::g_test;
use super::trainer::{Choice, ask, events, hung_in, send, tell, until};

const NEW: &str = "7";
const AT_ONCE: usize = 50;
const BATCHES: usize = 30;

/// Far from the old weights, so that a token of the wrong version shows.
fn language() -> LanguageModel {
    LanguageModel { eos_bias: -30.0, drift: 1.0, ..small_with_short_rows().language }
}

/// Drafts the token that the old weights like best: it and one other are in the row, the rest is tail.
async fn rig() -> Rig {
    let old = language();
    let drafters = told(move |request| {
        let draft = Draft::certain(argmax(&old.logits(request.context)) as u32);
        Ok(Proposal { drafts: vec![draft] })
    });
    let config = FakeConfig { language: language(), ..small_with_short_rows() };
    Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await
}

/// Rollouts of three tokens. An update comes when the rows of the second tokens have come, and each that lies in a tail
/// is still to be drawn.
async fn batch(rig: &Rig, verified: usize) -> Vec<Choice> {
    let body = json!({"prompt": PROMPT, "n": AT_ONCE, "temperature": 1, "max_tokens": 3, "logprobs": 0,
        "return_token_ids": true});
    let (rollouts, prefill) = hung_in(rig, &[COMPLETIONS], || send(rig, COMPLETIONS, &body)).await;
    let drawing = rig.fake.hang_next_times(COMPLETIONS, 10 * AT_ONCE);
    prefill.release();
    // Whoever is not done waits for a draw, or for a third token.
    until(|| {
        rig.verified("cached_suffix") as usize == verified + AT_ONCE
            && rig.fake.running() == rig.metric("sidedraft_rollouts_running", "") as usize
    })
    .await;
    let sent = ask(rig, "/update_weights", &json!({"update_info": {"weights": NEW}})).await;
    let named = ask(rig, "/update_weight_version", &json!({"new_version": NEW})).await;
    drawing.release();
    assert!(sent.await.unwrap().0.is_success() && named.await.unwrap().0.is_success());
    let events = events(rollouts).await;
    rig.fake.clear_faults();
    tell(rig, "/update_weights", &json!({"update_info": {"weights": FIRST_WEIGHTS}})).await;
    tell(rig, "/update_weight_version", &json!({"new_version": FIRST_WEIGHTS})).await;
    (0..AT_ONCE).map(|index| Choice::of(&events, index)).collect()
}

/// Where `token` falls in [0, 1) when the likeliest come first, spread over its own share.
fn quantile(language: &LanguageModel, context: &[u32], token: u32, rng: &mut StdRng) -> f64 {
    let p = language.raw(context);
    let own = p[token as usize];
    let likelier: f64 = p.iter().filter(|other| **other > own).sum();
    likelier + own * rng.random::<f64>()
}

/// P-values of: the first two tokens under the old weights; the third, where it was sampled under the new.
async fn fit(rig: &Rig) -> (f64, f64) {
    let (old, new) = (rig.fake.language_of(FIRST_WEIGHTS), rig.fake.language_of(NEW));
    let law = old.continuations(&PROMPT, 2, &SamplingParams::default());
    let cells: HashMap<&[u32], usize> = law.iter().enumerate().map(|(at, (tokens, _))| (&tokens[..], at)).collect();
    let (mut pairs, mut thirds) = (vec![0; law.len()], vec![0; 10]);
    let mut rng = StdRng::seed_from_u64(1);
    let verified = rig.verified("cached_suffix") as usize;
    for number in 0..BATCHES {
        for choice in batch(rig, verified + number * AT_ONCE).await {
            let labels = choice.scored_by(&[(FIRST_WEIGHTS, &old), (NEW, &new)]);
            assert_eq!(labels[..2], [FIRST_WEIGHTS; 2], "the second token's rows were the old weights'");
            pairs[cells[&choice.ids[..2]]] += 1;
            if labels[2] == NEW {
                let context = [&PROMPT[..], &choice.ids[..2]].concat();
                thirds[(quantile(&new, &context, choice.ids[2], &mut rng) * 10.0) as usize] += 1;
            }
        }
    }
    assert!(thirds.iter().sum::<u64>() > 100, "the update came too late: {thirds:?}");
    let probabilities: Vec<f64> = law.iter().map(|(_, p)| *p).collect();
    (g_test(&pairs, &probabilities).p_value, g_test(&thirds, &[0.1; 10]).p_value)
}

#[tokio::test]
async fn a_control_request_makes_no_token_likelier() {
    let rig = rig().await;
    let first = fit(&rig).await;
    if first.0.min(first.1) < 1e-3 {
        let second = fit(&rig).await;
        assert!(second.0.min(second.1) > 1e-3, "{first:?}, then {second:?}");
    }
    assert!(rig.metric("sidedraft_tail_samples_total", "") > 100.0);
    assert!(rig.metric("sidedraft_broken_turns_total", "") < 1e-9);
}

/// What would come of throwing away the steps that a control request finds under way: second tokens from a tail would be
/// sampled anew, under the new weights or, `after` being the old, under the same.
fn law_of_discarding(after: &LanguageModel) -> Vec<(Vec<u32>, f64)> {
    let old = language();
    let law = old.continuations(&PROMPT, 2, &SamplingParams::default());
    let changed = law.into_iter().map(|(tokens, p)| {
        if tokens.len() < 2 {
            return (tokens, p);
        }
        let context = [&PROMPT[..], &tokens[..1]].concat();
        let second = old.raw(&context);
        let mut ranked: Vec<usize> = (0..second.len()).collect();
        ranked.sort_by(|a, b| second[*b].total_cmp(&second[*a]));
        let (row, tail) = ranked.split_at(2);
        let slow: f64 = tail.iter().map(|id| second[*id]).sum();
        let id = tokens[1] as usize;
        let fast = if row.contains(&id) { second[id] } else { 0.0 };
        let changed = p / second[id] * (fast + slow * after.raw(&context)[id]);
        (tokens, changed)
    });
    changed.collect()
}

#[test]
fn a_sidecar_that_threw_steps_away_would_be_noticed() {
    let right = language().continuations(&PROMPT, 2, &SamplingParams::default());
    for after in [language(), language().with_weights(NEW)] {
        let wrong = law_of_discarding(&after);
        assert!((wrong.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
        // The expected counts themselves: a sample strays to both sides of them.
        let counts: Vec<u64> = wrong.iter().map(|(_, p)| (p * (AT_ONCE * BATCHES) as f64).round() as u64).collect();
        let probabilities: Vec<f64> = right.iter().map(|(_, p)| *p).collect();
        assert!(g_test(&counts, &probabilities).p_value < 1e-9);
    }
}
