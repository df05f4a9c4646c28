//! A rollout ends where the server would end it, also in the middle of the accepted drafts.

use serde_json::{Value, json};

use super::compare::same_answer;
use super::drafters::often_right;
use super::rig::{Plan, Rig, STRATEGIES, endless, greedy};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults, LanguageModel};

async fn rig(language: LanguageModel) -> Rig {
    let config = FakeConfig { language, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    Plan::new(config).drafters(drafters).flags("--draft-tokens 6").start().await
}

fn with(body: &Value, field: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[field] = value;
    body
}

/// What the server says greedily.
async fn said(rig: &Rig, prompt: u32) -> (Vec<u32>, String) {
    let body = with(&with(&greedy(40), "prompt", json!([prompt, 6])), "ignore_eos", json!(true));
    let choice = rig.complete_directly(&body).await["choices"][0].clone();
    (serde_json::from_value(choice["token_ids"].clone()).unwrap(), choice["text"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn at_any_number_of_tokens() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        for max_tokens in 1..=14 {
            let answer = same_answer(&rig, &greedy(max_tokens)).await;
            assert_eq!(answer["choices"][0]["finish_reason"], "length");
        }
    }
}

#[tokio::test]
async fn at_the_end_of_the_context() {
    let config = FakeConfig { language: endless(), max_model_len: 24, ..FakeConfig::default() };
    for strategy in STRATEGIES {
        let drafters = often_right(&config.language);
        let rig = Plan::new(config.clone()).strategy(strategy).drafters(drafters).start().await;
        for length in [1_usize, 10, 15, 19, 20, 21, 22, 23] {
            let body = with(&greedy(24), "prompt", json!(vec![5; length]));
            let answer = same_answer(&rig, &body).await;
            assert_eq!(answer["usage"]["total_tokens"], 24);
        }
    }
}

#[tokio::test]
async fn at_stop_strings_wherever_they_begin_and_end() {
    let rig = rig(endless()).await;
    for prompt in 0..4 {
        let (_, text) = said(&rig, prompt).await;
        let characters: Vec<char> = text.chars().collect();
        let mut stopped = 0;
        for (start, length) in [(2, 1), (3, 2), (5, 3), (8, 4), (11, 7), (14, 2), (0, 1)] {
            let stop: String = characters.iter().skip(start).take(length).collect();
            if stop.is_empty() {
                continue;
            }
            for include in [false, true] {
                let body = with(&with(&greedy(40), "prompt", json!([prompt, 6])), "ignore_eos", json!(true));
                let body =
                    with(&with(&body, "stop", json!([stop, "zzzz"])), "include_stop_str_in_output", json!(include));
                stopped += usize::from(same_answer(&rig, &body).await["choices"][0]["stop_reason"] == json!(stop));
            }
        }
        assert!(stopped > 4, "{stopped} of {text:?}");
    }
}

#[tokio::test]
async fn at_stop_tokens() {
    let rig = rig(endless()).await;
    let (ids, _) = said(&rig, 5).await;
    for at in [0, 1, 2, 3, 4, 5, 9, 14] {
        for include in [false, true] {
            let body = with(&with(&greedy(40), "prompt", json!([5, 6])), "stop_token_ids", json!([ids[at]]));
            let body = with(&with(&body, "include_stop_str_in_output", json!(include)), "logprobs", json!(1));
            let answer = same_answer(&rig, &body).await;
            assert_eq!(answer["choices"][0]["stop_reason"], ids[at]);
        }
    }
}

#[tokio::test]
async fn at_an_end_of_sequence() {
    let rig = rig(LanguageModel { eos_bias: 4.0, ..LanguageModel::default() }).await;
    let mut ends = 0;
    for prompt in 0..12 {
        let body = with(&greedy(30), "prompt", json!([prompt, 6]));
        let answer = same_answer(&rig, &body).await;
        ends += usize::from(answer["choices"][0]["finish_reason"] == "stop");
        same_answer(&rig, &with(&body, "ignore_eos", json!(true))).await;
        same_answer(&rig, &with(&body, "include_stop_str_in_output", json!(true))).await;
        let shown = with(&with(&body, "ignore_eos", json!(true)), "skip_special_tokens", json!(false));
        same_answer(&rig, &shown).await;
        let stop = with(&with(&body, "stop_token_ids", json!([63])), "ignore_eos", json!(true));
        same_answer(&rig, &stop).await;
    }
    assert!(ends > 6);
}

/// Ids that generation_config.json adds, special tokens of the tokenizer's.
#[tokio::test]
async fn at_an_end_of_sequence_that_the_model_adds() {
    let language = endless();
    let defaults = GenerationDefaults { extra_eos: vec![5, 9], ..GenerationDefaults::default() };
    let config = FakeConfig { language, defaults, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).start().await;
    let mut stopped = 0;
    for prompt in 10..22 {
        let body = with(&greedy(60), "prompt", json!([prompt, 6]));
        stopped += usize::from(same_answer(&rig, &body).await["choices"][0]["stop_reason"].is_number());
        same_answer(&rig, &with(&body, "ignore_eos", json!(true))).await;
        same_answer(&rig, &with(&body, "skip_special_tokens", json!(false))).await;
    }
    assert!(stopped > 4, "{stopped}");
}

/// The language writes the bytes of é and 😀 as they come, whole characters and pieces of them.
#[tokio::test]
async fn with_characters_that_several_tokens_spell() {
    let rig = rig(LanguageModel { seed: 3, ..endless() }).await;
    let codec = rig.fake.codec().clone();
    for text in ["é", "a😀", "é😀"] {
        let prompt = codec.encode(text);
        for cut in 0..prompt.len() {
            let prompt = &prompt[..=cut];
            let body = with(&with(&greedy(40), "prompt", json!(prompt)), "logprobs", json!(2));
            same_answer(&rig, &body).await;
        }
    }
}
