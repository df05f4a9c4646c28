//! Every sampling parameter changes the distribution that it says, and no other.

use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel, SamplingParams};
use super::support::stats::g_test;
use super::{CHAT, COMPLETIONS, GENERATE, id_list, ok, refusal};

/// Draws third tokens after `[5, 6]` and two of output, and tests each against the closed form for its own output.
async fn third_tokens_fit(fields: Value, change: impl FnOnce(&mut SamplingParams)) {
    let fake = FakeVllm::start_default().await;
    let mut params = SamplingParams::default();
    change(&mut params);
    // Two tokens that are always the same, so that every third has the same distribution.
    let mut body = json!({"prompt": [5, 6], "max_tokens": 2, "temperature": 0, "return_token_ids": true});
    fields.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
    let output = id_list(&ok(&fake, COMPLETIONS, body.clone()).await["choices"][0]["token_ids"]);
    let language = fake.language();
    let expected = language.distribution_at(&[5, 6], &output, &params);
    let mut observed = vec![0; language.vocab];
    body["max_tokens"] = json!(3);
    body["temperature"] = json!(1.0);
    body["n"] = json!(4000);
    let reply = ok(&fake, COMPLETIONS, body).await;
    for choice in reply["choices"].as_array().unwrap() {
        let ids = id_list(&choice["token_ids"]);
        if ids.len() == 3 && ids[..2] == output {
            observed[ids[2] as usize] += 1;
        }
    }
    assert!(observed.iter().sum::<u64>() > 50, "{observed:?}");
    let fit = g_test(&observed, &expected);
    assert!(fit.p_value > 1e-4, "{fields}: {fit:?}");
}

#[tokio::test]
async fn penalties_fit() {
    third_tokens_fit(json!({"repetition_penalty": 1.6}), |p| p.repetition_penalty = 1.6).await;
    third_tokens_fit(json!({"presence_penalty": 1.5}), |p| p.presence_penalty = 1.5).await;
    third_tokens_fit(json!({"frequency_penalty": -1.5}), |p| p.frequency_penalty = -1.5).await;
}

#[test]
fn presence_and_frequency_count_output_and_repetition_counts_the_prompt_too() {
    let language = LanguageModel::default();
    let with = |change: fn(&mut SamplingParams)| {
        let mut params = SamplingParams::default();
        change(&mut params);
        params
    };
    let plain = language.distribution(&[5, 6], &SamplingParams::default());
    for change in
        [|p: &mut SamplingParams| p.presence_penalty = 1.0, |p: &mut SamplingParams| p.frequency_penalty = 1.0]
    {
        assert_eq!(language.distribution_at(&[5, 6], &[], &with(change)), plain);
        assert_ne!(language.distribution_at(&[5], &[6], &with(change)), plain);
    }
    assert_ne!(language.distribution_at(&[5, 6], &[], &with(|p| p.repetition_penalty = 1.5)), plain);
}

#[test]
fn a_bad_words_beginning_is_looked_for_in_the_output_alone() {
    let language = LanguageModel::default();
    let params = SamplingParams { bad_words_ids: vec![vec![1, 2]], ..SamplingParams::default() };
    assert!(language.distribution_at(&[5, 1], &[], &params)[2] > 0.0, "in the prompt it is no beginning");
    assert_eq!(language.distribution_at(&[5], &[1], &params)[2], 0.0);
}

#[tokio::test]
async fn bad_words_and_allowed_ids_hold() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [1, 2], "max_tokens": 60, "n": 20, "allowed_token_ids": [1, 2, 3], "bad_words": ["ab"],
        "return_token_ids": true});
    for choice in ok(&fake, COMPLETIONS, body).await["choices"].as_array().unwrap() {
        let ids = id_list(&choice["token_ids"]);
        assert!(ids.iter().all(|id| (1..=3).contains(id)));
        assert!(!ids.windows(2).any(|pair| pair == [1, 2]), "{ids:?}");
    }
}

#[tokio::test]
async fn no_stop_id_comes_before_min_tokens() {
    let language = LanguageModel { eos_bias: 5.0, ..LanguageModel::default() };
    let fake = FakeVllm::start(FakeConfig { language, ..FakeConfig::default() }).await;
    let body = json!({"prompt": [1, 2], "max_tokens": 30, "min_tokens": 7, "n": 30, "stop_token_ids": [4],
        "return_token_ids": true});
    for choice in ok(&fake, COMPLETIONS, body).await["choices"].as_array().unwrap() {
        let ids = id_list(&choice["token_ids"]);
        assert!(ids.len() >= 8, "masked while the output is shorter than 7: {ids:?}");
    }
}

#[tokio::test]
async fn a_bias_is_clamped_but_not_by_generate() {
    let fake = FakeVllm::start_default().await;
    // A logit of −1000 against a bias of 100: where the bias is clamped on both ids they are alike.
    let bias = json!({"3": 1000, "4": 100});
    let mut seen = std::collections::HashSet::new();
    for (path, body) in [
        (
            COMPLETIONS,
            json!({"prompt": [1, 2], "max_tokens": 1, "n": 200, "logit_bias": bias, "return_token_ids": true}),
        ),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "n": 200, "logit_bias": bias,
            "return_token_ids": true}),
        ),
    ] {
        let reply = ok(&fake, path, body).await;
        let ids = reply["choices"].as_array().unwrap().iter().map(|choice| id_list(&choice["token_ids"])[0]);
        seen.extend(ids.map(|id| (path, id)));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    let params = json!({"max_tokens": 1, "n": 200, "logit_bias": bias});
    let reply = ok(&fake, GENERATE, json!({"token_ids": [1, 2], "sampling_params": params})).await;
    assert!(reply["choices"].as_array().unwrap().iter().all(|choice| choice["token_ids"] == json!([3])));
}

#[tokio::test]
async fn refusals_are_in_vllms_words() {
    let fake = FakeVllm::start_default().await;
    for (more, message) in [
        (
            json!({"allowed_token_ids": []}),
            "allowed_token_ids is not None and empty! (parameter=allowed_token_ids, value=[])",
        ),
        (
            json!({"allowed_token_ids": [1, 64]}),
            "allowed_token_ids contains out-of-vocab token id! (parameter=allowed_token_ids, value=[64])",
        ),
        (json!({"bad_words": [""]}), "bad_words cannot contain an empty string. Got bad_words=['']"),
        (json!({"temperature": 0, "n": 2}), "n must be 1 when using greedy sampling, got 2."),
        (json!({"presence_penalty": 3.5}), "presence_penalty must be in [-2, 2], got 3.5."),
        (json!({"repetition_penalty": -1.5}), "repetition_penalty must be greater than zero, got -1.5."),
        (
            json!({"logit_bias": {"x": 1}}),
            "logit_bias contains key(s) that cannot be converted to integer token IDs: ['x'] (parameter=logit_bias, \
          value=['x'])",
        ),
    ] {
        let mut body = json!({"prompt": [1, 2]});
        more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        assert_eq!(refusal(&fake, COMPLETIONS, body).await, (400, message.to_owned()));
    }
}
