//! Whether rollouts through the sidecar follow the law that the fake's closed form gives.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::rig::{Plan, Rig};
use super::support::fake_vllm::{FakeConfig, LanguageModel, SamplingParams};
use super::support::stats::{GTest, g_test};

pub const PROMPT: [u32; 6] = [1, 2, 3, 4, 5, 1];

/// A small language, so that every first three tokens can be counted.
pub fn small() -> FakeConfig {
    let language = LanguageModel { vocab: 7, sharpness: 1.2, seed: 11, ..LanguageModel::default() };
    FakeConfig { language, ..FakeConfig::default() }
}

/// As [`small`], with rows so short that much of the distribution lies outside of them.
pub fn small_with_short_rows() -> FakeConfig {
    FakeConfig { max_logprobs: 2, ..small() }
}

/// Parameters of a closed form.
pub fn expecting(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
    let mut params = SamplingParams::default();
    change(&mut params);
    params
}

/// Samples `rollouts` rollouts with the sampling parameters in `fields` and compares them with the law of `expected`.
pub async fn fit(rig: &Rig, fields: &Value, expected: &SamplingParams, rollouts: usize) -> GTest {
    const AT_ONCE: usize = 50;
    let body = request(fields, &json!({ "n": AT_ONCE }));
    let mut outputs = Vec::with_capacity(rollouts);
    for _ in 0..rollouts / AT_ONCE {
        outputs.extend(ids(&rig.complete(&body).await));
    }
    compare(rig, &outputs, expected)
}

/// A request for five tokens after the prompt, with the fields of both objects.
pub fn request(fields: &Value, more: &Value) -> Value {
    let mut body = json!({"prompt": PROMPT, "max_tokens": 5, "return_token_ids": true});
    for (field, value) in fields.as_object().into_iter().chain(more.as_object()).flatten() {
        body[field] = value.clone();
    }
    body
}

/// The ids of each choice.
pub fn ids(reply: &Value) -> Vec<Vec<u32>> {
    let choices = reply["choices"].as_array().unwrap();
    choices.iter().map(|choice| serde_json::from_value(choice["token_ids"].clone()).unwrap()).collect()
}

/// Compares the first three tokens of each output with the law of `expected`.
pub fn compare(rig: &Rig, outputs: &[Vec<u32>], expected: &SamplingParams) -> GTest {
    compare_first(3, rig, outputs, expected)
}

/// Compares the first `count` tokens of each output with the law of `expected`.
pub fn compare_first(count: usize, rig: &Rig, outputs: &[Vec<u32>], expected: &SamplingParams) -> GTest {
    compare_after(&PROMPT, count, rig, outputs, expected)
}

/// The same of outputs after another prompt.
pub fn compare_after(
    prompt: &[u32],
    count: usize,
    rig: &Rig,
    outputs: &[Vec<u32>],
    expected: &SamplingParams,
) -> GTest {
    let law = rig.fake.language().continuations(prompt, count, expected);
    let cells: HashMap<&[u32], usize> = law.iter().enumerate().map(|(at, (tokens, _))| (&tokens[..], at)).collect();
    let mut observed = vec![0; law.len() + 1];
    for output in outputs {
        // What cannot happen has a cell of its own.
        observed[cells.get(&output[..output.len().min(count)]).copied().unwrap_or(law.len())] += 1;
    }
    let probabilities: Vec<f64> = law.iter().map(|(_, p)| *p).chain([0.0]).collect();
    g_test(&observed, &probabilities)
}

/// Fails unless rollouts follow the law. A sample that is unlikely by chance gets one more try: an exact sidecar fails
/// once in a million runs.
pub async fn assert_exact(rig: &Rig, fields: Value, expected: SamplingParams) {
    const ROLLOUTS: usize = 1500;
    let first = fit(rig, &fields, &expected, ROLLOUTS).await;
    if first.p_value < 1e-3 {
        let second = fit(rig, &fields, &expected, ROLLOUTS).await;
        assert!(second.p_value > 1e-3, "{fields}: {first:?}, then {second:?}");
    }
    assert!(rig.metric("vllm:spec_decode_num_drafts_total", "") > 0.0, "nothing was drafted");
}

/// Starts `plan` and checks plain sampling at temperature 1.
pub async fn plain_sampling_is_exact(plan: Plan) -> Rig {
    let rig = plan.start().await;
    assert_exact(&rig, json!({"temperature": 1.0}), expecting(|_| {})).await;
    assert!(rig.accepted() > 0.0);
    rig
}
