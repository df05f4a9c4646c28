use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel, SamplingParams, argmax};
use super::support::stats::g_test;
use super::{COMPLETIONS, GENERATE, ok};

fn params(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut params = SamplingParams::default();
    change(&mut params);
    params
}

fn kept(distribution: &[f64]) -> usize {
    distribution.iter().filter(|&&p| p > 0.0).count()
}

#[test]
fn every_distribution_sums_to_one() {
    let language = LanguageModel::default();
    for change in [
        params(|_| {}),
        params(|p| p.temperature = 0.0),
        params(|p| p.temperature = 0.3),
        params(|p| (p.top_p, p.temperature) = (0.7, 1.5)),
        params(|p| (p.top_k, p.min_p) = (5, 0.1)),
        params(|p| p.allowed_token_ids = Some(vec![1, 2, 3])),
        params(|p| p.repetition_penalty = 1.3),
    ] {
        for context in [&[][..], &[3], &[3, 4], &[60, 61, 62]] {
            let sum: f64 = language.distribution(context, &change).iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{change:?}");
        }
    }
}

#[test]
fn the_next_token_depends_on_the_last_two_ids_only() {
    let language = LanguageModel::default();
    assert_eq!(language.logits(&[1, 2, 3]), language.logits(&[9, 2, 3]));
    assert_ne!(language.logits(&[1, 2, 3]), language.logits(&[1, 9, 3]));
}

#[test]
fn truncation_keeps_what_vllm_keeps() {
    let language = LanguageModel::default();
    let raw = language.raw(&[1, 2]);
    assert_eq!(kept(&language.distribution(&[1, 2], &params(|p| p.temperature = 0.0))), 1);
    assert_eq!(kept(&language.distribution(&[1, 2], &params(|p| p.top_k = 5))), 5);

    let min_p = language.distribution(&[1, 2], &params(|p| p.min_p = 0.2));
    let threshold = 0.2 * raw[argmax(&raw)];
    assert_eq!(kept(&min_p), raw.iter().filter(|&&p| p >= threshold).count());

    // The fewest tokens that hold at least p.
    let top_p = language.distribution(&[1, 2], &params(|p| p.top_p = 0.8));
    let mut sorted = raw.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mass = |count: usize| sorted[..count].iter().sum::<f64>();
    assert!(mass(kept(&top_p)) >= 0.8 && mass(kept(&top_p) - 1) < 0.8);
}

#[test]
fn top_k_keeps_ties() {
    let language = LanguageModel { quantum: Some(1.0), ..LanguageModel::default() };
    let logits = language.logits(&[1, 2]);
    let mut sorted = logits.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let k = (1..logits.len()).find(|&k| sorted[k - 1] == sorted[k]).unwrap();
    let kept = kept(&language.distribution(&[1, 2], &params(|p| p.top_k = k as i64)));
    assert_eq!(kept, logits.iter().filter(|&&logit| logit >= sorted[k - 1]).count());
    assert!(kept > k);
}

#[test]
fn a_bias_of_minus_100_bans_and_min_tokens_holds_back_the_end() {
    let language = LanguageModel::default();
    let banned = language.distribution(&[1], &params(|p| p.logit_bias = [(4, -100.0)].into()));
    assert!(banned[4] < 1e-40);
    let unfinished = language.distribution_at(&[1], &[2], &params(|p| p.min_tokens = 2));
    let finished = language.distribution_at(&[1], &[2, 3], &params(|p| p.min_tokens = 2));
    let end = language.eos() as usize;
    assert!(unfinished[end] == 0.0 && finished[end] > 0.0);
}

/// Draws the first token after `prompt` many times and tests it against the closed form.
async fn samples_fit(path: &str, fields: Value, expected: &SamplingParams) {
    let fake = FakeVllm::start(FakeConfig { max_logprobs: -1, ..FakeConfig::default() }).await;
    let prompt = [5, 6];
    let mut observed = vec![0; fake.language().vocab];
    for _ in 0..20 {
        let mut body = fields.clone();
        body["max_tokens"] = json!(1);
        body["n"] = json!(100);
        let reply = if path == COMPLETIONS {
            body["prompt"] = json!(prompt);
            body["return_token_ids"] = json!(true);
            ok(&fake, path, body).await
        } else {
            ok(&fake, path, json!({"token_ids": prompt, "sampling_params": body})).await
        };
        for choice in reply["choices"].as_array().unwrap() {
            observed[choice["token_ids"][0].as_u64().unwrap() as usize] += 1;
        }
    }
    let fit = g_test(&observed, &fake.language().distribution(&prompt, expected));
    assert!(fit.p_value > 1e-3, "{fit:?}");
}

#[tokio::test]
async fn completions_are_samples_of_the_distribution() {
    samples_fit(COMPLETIONS, json!({}), &params(|_| {})).await;
    let truncated = json!({"temperature": 1.4, "top_k": 12, "top_p": 0.9, "logit_bias": {"7": 3.0}});
    let expected = params(|p| {
        (p.temperature, p.top_k, p.top_p) = (1.4, 12, 0.9);
        p.logit_bias = [(7, 3.0)].into();
    });
    samples_fit(COMPLETIONS, truncated, &expected).await;
}

#[tokio::test]
async fn generated_tokens_are_samples_of_the_distribution() {
    samples_fit(
        GENERATE,
        json!({"min_p": 0.05, "temperature": 0.8}),
        &params(|p| (p.min_p, p.temperature) = (0.05, 0.8)),
    )
    .await;
}

#[tokio::test]
async fn a_distribution_that_is_not_the_servers_is_refuted() {
    let fake = FakeVllm::start_default().await;
    let reply =
        ok(&fake, COMPLETIONS, json!({"prompt": [5, 6], "max_tokens": 1, "n": 500, "return_token_ids": true})).await;
    let mut observed = vec![0; 64];
    for choice in reply["choices"].as_array().unwrap() {
        observed[choice["token_ids"][0].as_u64().unwrap() as usize] += 1;
    }
    assert!(g_test(&observed, &fake.language().raw(&[6, 5])).p_value < 1e-6);
}

#[tokio::test]
async fn a_seed_repeats_a_rollout() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [5, 6], "max_tokens": 12, "seed": 3, "return_token_ids": true});
    let first = ok(&fake, COMPLETIONS, body.clone()).await;
    assert_eq!(first["choices"], ok(&fake, COMPLETIONS, body).await["choices"]);
}

#[test]
fn continuations_are_a_distribution_over_whole_rollouts() {
    let language = LanguageModel { vocab: 6, ..LanguageModel::default() };
    let all = language.continuations(&[1, 2], 3, &params(|_| {}));
    assert!((all.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(all.iter().all(|(tokens, _)| tokens.len() == 3 || tokens.ends_with(&[language.eos()])));
}
