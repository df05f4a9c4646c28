//! Sampling under constraints follows the law that the fake's closed form gives, by the match rule.

use serde_json::{Value, json};

use super::drafters::{drawing, often_right};
use super::exactness::{PROMPT, assert_exact, compare_first, expecting, fit, ids, request, small};
use super::rig::{GENERATE, Plan, Rig};
use super::support::fake_vllm::SamplingParams;

async fn drawn() -> Rig {
    let config = small();
    let drafters = drawing(&config.language);
    Plan::new(config).drafters(drafters).start().await
}

/// Asserts that the law holds, that the server's samples alone decided, and that drafts were among what they kept.
async fn matched(fields: Value, change: impl FnOnce(&mut SamplingParams)) {
    let rig = drawn().await;
    assert_exact(&rig, fields.clone(), expecting(change)).await;
    assert!(rig.verified("fan_out") > 0.0 && rig.accepted() > 0.0, "{fields}");
    assert!(rig.verified("cached_suffix") + rig.verified("prompt_logprobs") < 0.5, "{fields}");
    assert!(rig.outcome("forwarded") < 0.5, "{fields}");
}

#[tokio::test]
async fn with_a_logit_bias() {
    matched(json!({"temperature": 1, "logit_bias": {"2": 1.5, "4": -2, "6": -1.0}}), |p| {
        p.logit_bias = [(2, 1.5), (4, -2.0), (6, -1.0)].into();
    })
    .await;
}

#[tokio::test]
async fn with_a_banned_token() {
    matched(json!({"temperature": 1, "logit_bias": {"3": -400}}), |p| p.logit_bias = [(3, -100.0)].into()).await;
}

#[tokio::test]
async fn with_allowed_ids() {
    matched(json!({"temperature": 1, "allowed_token_ids": [1, 2, 5, 6]}), |p| {
        p.allowed_token_ids = Some(vec![1, 2, 5, 6]);
    })
    .await;
}

#[tokio::test]
async fn with_bad_words() {
    matched(json!({"temperature": 1, "bad_words": ["a", "d"]}), |p| p.bad_words_ids = vec![vec![1], vec![4]]).await;
}

#[tokio::test]
async fn with_a_repetition_penalty() {
    matched(json!({"temperature": 1, "repetition_penalty": 3.0}), |p| p.repetition_penalty = 3.0).await;
}

#[tokio::test]
async fn with_all_of_them_at_another_temperature() {
    let fields = json!({"temperature": 0.8, "top_p": 0.95, "logit_bias": {"2": 1.0}, "allowed_token_ids": [0, 1, 2, 4, 5, 6],
        "bad_words": ["d"], "repetition_penalty": 1.3, "min_tokens": 5});
    matched(fields, |p| {
        (p.temperature, p.top_p, p.repetition_penalty, p.min_tokens) = (0.8, 0.95, 1.3, 5);
        p.logit_bias = [(2, 1.0)].into();
        p.allowed_token_ids = Some(vec![0, 1, 2, 4, 5, 6]);
        p.bad_words_ids = vec![vec![4]];
    })
    .await;
}

/// Four tokens of rollouts that cannot end within the first two or three: drafts come up to the border, and go on past it.
#[tokio::test]
async fn across_the_border_of_the_shortest_output() {
    for (min_tokens, flags) in [(2, ""), (3, ""), (3, "--strategy prompt-logprobs"), (3, "--strategy fan-out")] {
        let config = small();
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).drafters(drafters).flags(flags).flags("--decode-burst 1").start().await;
        let body = request(&json!({"temperature": 1, "min_tokens": min_tokens, "max_tokens": 9, "n": 50}), &json!({}));
        let expected = expecting(|p| p.min_tokens = min_tokens);
        exactly(&rig, &expected, async || ids(&rig.complete(&body).await)).await;
        let by_rows = rig.verified("cached_suffix") + rig.verified("prompt_logprobs");
        // A single token before the border leaves no room for a draft.
        let by_samples = min_tokens > 2 || flags.contains("fan-out");
        assert_eq!((rig.verified("fan_out") > 0.0, by_rows > 0.0), (by_samples, !flags.contains("fan-out")));
    }
}

/// Asserts that what `fifty` rollouts at a time come to follows the law, and that drafts were kept. A sample that is unlikely
/// by chance gets one more try.
async fn exactly(rig: &Rig, expected: &SamplingParams, fifty: impl AsyncFn() -> Vec<Vec<u32>>) {
    let mut p_values = Vec::new();
    for _ in 0..2 {
        let mut outputs = Vec::new();
        for _ in 0..40 {
            outputs.extend(fifty().await);
        }
        p_values.push(compare_first(4, rig, &outputs, expected).p_value);
        if p_values[0] > 1e-3 {
            break;
        }
    }
    assert!(p_values.last().is_some_and(|p| *p > 1e-3), "{p_values:?}");
    assert!(rig.accepted() > 0.0);
}

#[tokio::test]
async fn a_bias_on_the_generate_route() {
    let rig = drawn().await;
    let expected = expecting(|p| p.logit_bias = [(2, 1.5), (6, -140.0)].into());
    let sampling = json!({"max_tokens": 5, "n": 50, "logit_bias": {"2": 1.5, "6": -140}});
    let body = json!({"token_ids": PROMPT, "sampling_params": sampling});
    let fifty = async || ids(&rig.sidecar.post(GENERATE, &body).await.json::<Value>().await.unwrap());
    exactly(&rig, &expected, fifty).await;
    assert!(rig.verified("fan_out") > 0.0);
}

/// So small a sample tells a law from the same without its constraint.
#[tokio::test]
async fn a_constraint_that_is_not_heeded_would_be_noticed() {
    let rig = drawn().await;
    for (fields, change) in [
        (json!({"logit_bias": {"2": 1.5}}), (|p| p.logit_bias = [(2, 1.5)].into()) as fn(&mut SamplingParams)),
        (json!({"allowed_token_ids": [1, 2, 5, 6]}), |p| p.allowed_token_ids = Some(vec![1, 2, 5, 6])),
        (json!({"bad_words": ["a"]}), |p| p.bad_words_ids = vec![vec![1]]),
        (json!({"repetition_penalty": 3.0}), |p| p.repetition_penalty = 3.0),
        (json!({"min_tokens": 2}), |p| p.min_tokens = 2),
    ] {
        let plain = fit(&rig, &json!({"temperature": 1}), &expecting(change), 1000).await;
        assert!(plain.p_value < 1e-9, "{fields}: {plain:?}");
        let heeded = fit(&rig, &fields, &expecting(|_| {}), 1000).await;
        assert!(heeded.p_value < 1e-9, "{fields}: {heeded:?}");
    }
}
