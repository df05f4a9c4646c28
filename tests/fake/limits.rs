//! A rollout gets as many tokens as the server would give it, whoever sets the limit.

use serde_json::{Value, json};

use super::replies::{CHAT, ROUTES, asking, same_reply};
use super::rig::{COMPLETIONS, GENERATE, Rig, endless};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults};

async fn rig(scale_out: bool, most: Option<i64>, default: Option<i64>) -> Rig {
    let defaults = GenerationDefaults { max_new_tokens: default, ..GenerationDefaults::default() };
    let language = endless();
    let config = FakeConfig {
        language,
        scale_out,
        override_max_tokens: most,
        defaults,
        max_model_len: 512,
        ..FakeConfig::default()
    };
    Rig::drafting(config).await
}

/// How many tokens a request gets that asks for `max_tokens`.
async fn granted(rig: &Rig, route: &str, max_tokens: Value) -> u64 {
    let mut body = asking(route, &json!({ "max_tokens": max_tokens }));
    let fields = if route == GENERATE { &mut body["sampling_params"] } else { &mut body };
    // Absent is not the same as null everywhere.
    fields.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let answer = same_reply(rig, route, &body).await;
    answer["usage"]["completion_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn a_chat_gets_what_it_asks_for() {
    for scale_out in [true, false] {
        let rig = rig(scale_out, None, None).await;
        // Rendering leaves out 16, which is what it means to say nothing.
        for most in [1, 2, 15, 16, 17, 40] {
            assert_eq!(granted(&rig, CHAT, json!(most)).await, most);
        }
        for fields in [json!({"max_tokens": 9, "max_completion_tokens": 7}), json!({"max_completion_tokens": 7})] {
            let answer = same_reply(&rig, CHAT, &asking(CHAT, &fields)).await;
            assert_eq!(answer["usage"]["completion_tokens"], 7);
        }
    }
}

#[tokio::test]
async fn a_request_that_does_not_say_gets_what_the_model_leaves() {
    for scale_out in [true, false] {
        let rig = rig(scale_out, None, None).await;
        let answer = same_reply(&rig, CHAT, &asking(CHAT, &json!({"max_tokens": null}))).await;
        assert_eq!(answer["usage"]["total_tokens"], 512);
        assert!(granted(&rig, CHAT, Value::Null).await > 400);
    }
    assert_eq!(granted(&rig(true, None, None).await, GENERATE, Value::Null).await, 509);
    assert_eq!(granted(&rig(true, None, None).await, COMPLETIONS, Value::Null).await, 16);
}

#[tokio::test]
async fn a_generation_config_sets_the_limit_of_a_request_that_does_not_say() {
    let rig = rig(true, None, Some(21)).await;
    assert_eq!(granted(&rig, CHAT, Value::Null).await, 21);
    assert_eq!(granted(&rig, CHAT, json!(30)).await, 30);
    assert_eq!(granted(&rig, GENERATE, Value::Null).await, 21);
    assert_eq!(granted(&rig, COMPLETIONS, Value::Null).await, 16);
}

#[tokio::test]
async fn an_operator_sets_the_limit_of_every_openai_request() {
    let rig = rig(true, Some(11), None).await;
    for route in [CHAT, COMPLETIONS] {
        assert_eq!(granted(&rig, route, json!(30)).await, 11);
        assert_eq!(granted(&rig, route, Value::Null).await, 11);
        assert_eq!(granted(&rig, route, json!(5)).await, 5);
    }
    assert_eq!(granted(&rig, GENERATE, Value::Null).await, 11);
}

/// `is_sampling_param_provided` in `vllm/entrypoints/scale_out/token_in_token_out/serving.py`.
#[tokio::test]
async fn a_generate_request_gets_what_it_asks_for_whatever_the_operator_says() {
    let rig = rig(true, Some(11), None).await;
    assert_eq!(granted(&rig, GENERATE, json!(30)).await, 30);
}

#[tokio::test]
async fn a_prompt_near_the_end_of_the_context_gets_what_is_left() {
    for route in ROUTES {
        let config = FakeConfig { language: endless(), max_model_len: 60, ..FakeConfig::default() };
        let rig = Rig::drafting(config).await;
        for length in [10, 25, 26, 27, 28, 30] {
            let prompt = json!({"prompt": vec![5; length + 29], "token_ids": vec![5; length + 29],
                "messages": [{"role": "user", "content": "a".repeat(length)}]});
            let mut body = asking(route, &json!({"max_tokens": 40}));
            for field in ["prompt", "token_ids", "messages"] {
                if body.get(field).is_some() {
                    body[field] = prompt[field].clone();
                }
            }
            let answer = same_reply(&rig, route, &body).await;
            assert_eq!(answer["choices"][0]["finish_reason"], "length");
        }
    }
}

#[tokio::test]
async fn limits_hold_where_nothing_is_rendered() {
    let by_operator = rig(false, Some(11), None).await;
    for route in [CHAT, COMPLETIONS] {
        assert_eq!(granted(&by_operator, route, json!(30)).await, 11);
    }
    assert_eq!(granted(&rig(false, None, Some(21)).await, CHAT, Value::Null).await, 21);
}
