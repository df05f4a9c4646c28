//! Greedy rollouts are the server's own, to the last field of the reply.

use serde_json::{Value, json};

use super::compare::same_answer;
use super::drafters::often_right;
use super::rig::{Plan, Rig, STRATEGIES, endless, greedy};
use super::support::fake_vllm::{FakeConfig, Garbage, LanguageModel, Runner};

async fn rigs() -> Vec<Rig> {
    let mut rigs = Vec::new();
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        rigs.push(Plan::new(config).strategy(strategy).drafters(drafters).start().await);
    }
    rigs
}

fn with(mut body: Value, fields: Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

#[tokio::test]
async fn every_strategy_gives_the_servers_answer() {
    for (rig, strategy) in rigs().await.iter().zip(["cached_suffix", "prompt_logprobs", "fan_out"]) {
        for prompt in [json!([5, 6, 7]), json!("the end"), json!([1]), json!((0..60).collect::<Vec<u32>>())] {
            same_answer(rig, &with(greedy(30), json!({"prompt": prompt}))).await;
        }
        assert!(rig.verified(strategy) > 0.0 && rig.accepted() > 0.0);
    }
}

#[tokio::test]
async fn log_probabilities_are_the_servers_whatever_their_number() {
    for rig in rigs().await {
        for logprobs in [0, 1, 2, 5, 19, 20] {
            same_answer(&rig, &with(greedy(12), json!({"logprobs": logprobs}))).await;
        }
        same_answer(&rig, &with(greedy(12), json!({"logprobs": 2, "return_tokens_as_token_ids": true}))).await;
    }
}

#[tokio::test]
async fn lists_of_prompts_are_answered_in_their_order() {
    for rig in rigs().await {
        same_answer(&rig, &with(greedy(8), json!({"prompt": [[1, 2], [3], [4, 5, 6]], "logprobs": 1}))).await;
        same_answer(&rig, &with(greedy(8), json!({"prompt": ["ab", "the"]}))).await;
    }
}

#[tokio::test]
async fn fields_that_change_nothing_are_no_reason_to_forward() {
    let neutral = json!({"frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {},
        "min_tokens": 0, "seed": 3, "best_of": null, "suffix": null, "user": "me", "top_p": 0.5, "top_k": 3,
        "response_format": {"type": "text"}, "bad_words": [], "cache_salt": "s", "length_penalty": 1.0, "echo": false});
    let mut neutral = neutral;
    neutral.as_object_mut().unwrap().remove("best_of");
    same_answer(&Rig::usual().await, &with(greedy(10), neutral)).await;
}

#[tokio::test]
async fn ties_are_broken_as_the_server_breaks_them() {
    let language = LanguageModel { quantum: Some(2.0), ..endless() };
    for strategy in STRATEGIES {
        let config = FakeConfig { language: language.clone(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        // Which of several equals the server lists among the likeliest, only its own samples tell.
        let logprobs = if strategy == "fan-out" { 3 } else { 0 };
        for start in 0..6 {
            same_answer(&rig, &with(greedy(20), json!({"prompt": [start, 9], "logprobs": logprobs}))).await;
        }
    }
}

#[tokio::test]
async fn rows_that_the_cache_swallowed_change_nothing() {
    for (runner, garbage) in [
        (Runner::V2, Garbage::Zeros),
        (Runner::V1, Garbage::Zeros),
        (Runner::V1, Garbage::Stale),
        (Runner::V1, Garbage::Nan),
    ] {
        let config = FakeConfig { language: endless(), block_size: 4, runner, garbage, ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
        for _ in 0..3 {
            same_answer(&rig, &with(greedy(25), json!({"logprobs": 2}))).await;
        }
        if garbage != Garbage::Nan {
            assert!(rig.metric("sidedraft_lost_rows_total", "") > 0.0);
        }
    }
}

#[tokio::test]
async fn n_grams_of_a_text_that_repeats_itself_are_drafted() {
    let language = LanguageModel { sharpness: 6.0, ..endless() };
    let rig = Plan::new(FakeConfig { language, ..FakeConfig::default() }).flags("--draft-tokens 8").start().await;
    same_answer(&rig, &greedy(200)).await;
    assert!(rig.accepted() > 50.0, "a greedy chain of order two ends in a loop");
}
