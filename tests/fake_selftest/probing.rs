//! What a sidecar has to find out about a server before it speaks for it.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::{FakeConfig, FakeVllm, GenerationDefaults, LanguageModel};
use super::{CHAT, COMPLETIONS, GENERATE, ok, refusal};

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "a"}], "ignore_eos": true, "stream": true, "max_tokens": 3})
}

#[tokio::test]
async fn a_server_may_send_usage_unasked() {
    let fake = FakeVllm::start(FakeConfig { force_include_usage: true, ..FakeConfig::default() }).await;
    let completion = json!({"prompt": [1], "ignore_eos": true, "stream": true, "max_tokens": 3});
    for (path, body) in [(COMPLETIONS, completion), (CHAT, chat())] {
        let chunks = events_of(&fake, path, &body).await;
        assert!(chunks.iter().all(|chunk| chunk["usage"]["prompt_tokens"].is_u64()), "{path}");
        assert_eq!(chunks.last().unwrap()["choices"], json!([]));
    }
}

#[tokio::test]
async fn a_generation_config_may_say_how_many_tokens() {
    let defaults = GenerationDefaults { max_new_tokens: Some(7), ..GenerationDefaults::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, ..FakeConfig::default() }).await;
    let mut body = chat();
    body["stream"] = json!(false);
    body["max_tokens"] = Value::Null;
    assert_eq!(ok(&fake, CHAT, body.clone()).await["usage"]["completion_tokens"], 7);
    let generate = json!({"token_ids": [1], "sampling_params": {"ignore_eos": true}});
    assert_eq!(ok(&fake, GENERATE, generate).await["usage"]["completion_tokens"], 7);
    body["max_tokens"] = json!(9);
    assert_eq!(ok(&fake, CHAT, body).await["usage"]["completion_tokens"], 9);
}

#[tokio::test]
async fn an_operator_may_cap_them() {
    let fake = FakeVllm::start(FakeConfig { override_max_tokens: Some(4), ..FakeConfig::default() }).await;
    let completion = json!({"prompt": [1], "ignore_eos": true, "max_tokens": 9});
    assert_eq!(ok(&fake, COMPLETIONS, completion.clone()).await["usage"]["completion_tokens"], 4);
    let rendered = ok(&fake, "/v1/completions/render", completion).await;
    assert_eq!(rendered[0]["sampling_params"]["max_tokens"], 4);
    let said = json!({"token_ids": [1], "sampling_params": {"ignore_eos": true, "max_tokens": 9}});
    assert_eq!(ok(&fake, GENERATE, said).await["usage"]["completion_tokens"], 9, "what generate is told stands");
}

#[tokio::test]
async fn an_end_token_need_not_be_marked_as_special() {
    let defaults = GenerationDefaults { extra_eos: vec![8], plain_eos: vec![9], ..GenerationDefaults::default() };
    let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, language, ..FakeConfig::default() }).await;
    let body = json!({"prompt": [1], "max_tokens": 5, "allowed_token_ids": [9], "include_stop_str_in_output": true});
    let reply = ok(&fake, COMPLETIONS, body).await;
    let choice = &reply["choices"][0];
    assert_eq!((&choice["stop_reason"], &choice["text"]), (&json!(9), &json!("<|end9|>")));
    assert_eq!(fake.codec().decode(&[8, 9], true), "<|end9|>");
}

#[tokio::test]
async fn a_default_of_greedy_allows_one_choice() {
    let defaults = GenerationDefaults { temperature: Some(0.0), ..GenerationDefaults::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, ..FakeConfig::default() }).await;
    let message = "n must be 1 when using greedy sampling, got 2.".to_owned();
    assert_eq!(refusal(&fake, COMPLETIONS, json!({"prompt": [1], "n": 2})).await, (400, message));
    ok(&fake, GENERATE, json!({"token_ids": [1], "sampling_params": {"n": 2, "max_tokens": 1}})).await;
}

#[tokio::test]
async fn a_priority_is_taken_unless_the_server_refuses_it() {
    let body = json!({"token_ids": [1], "sampling_params": {"max_tokens": 1}, "priority": 3});
    ok(&FakeVllm::start_default().await, GENERATE, body.clone()).await;
    let fake = FakeVllm::start(FakeConfig { refuse_priority: true, ..FakeConfig::default() }).await;
    let message = "Got priority 3 but Priority scheduling is not enabled.".to_owned();
    assert_eq!(refusal(&fake, GENERATE, body).await, (400, message));
}
