//! Replies byte for byte. Their order of keys and their nulls are those seen on vLLM 0.32.0.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::streams::raw_events;
use super::support::fake_vllm::FakeVllm;
use super::{CHAT, COMPLETIONS, GENERATE};

async fn text(path: &str, body: Value) -> String {
    let fake = FakeVllm::start_default().await;
    reqwest::Client::new().post(fake.url() + path).json(&body).send().await.unwrap().text().await.unwrap()
}

async fn streamed(path: &str, body: Value, expected: Expect) {
    let fake = FakeVllm::start_default().await;
    expected.assert_eq(&(raw_events(&fake, path, &body).await.join("\n") + "\n"));
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "seed": 1, "ignore_eos": true,
        "request_id": "r", "logprobs": true, "top_logprobs": 1});
    more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
    body
}

#[tokio::test]
async fn a_chat() {
    expect![[]].assert_eq(&text(CHAT, chat(json!({"return_token_ids": true}))).await);
}

#[tokio::test]
async fn a_streamed_chat() {
    streamed(CHAT, chat(json!({"stream": true})), expect![[]]).await;
}

#[tokio::test]
async fn a_streamed_chat_with_usage_and_ids() {
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let more = json!({"stream": true, "stream_options": options, "return_token_ids": true, "logprobs": false,
        "top_logprobs": 0});
    streamed(CHAT, chat(more), expect![[]]).await;
}

#[tokio::test]
async fn a_completion() {
    let body = json!({"prompt": [1, 2], "max_tokens": 2, "seed": 1, "ignore_eos": true, "request_id": "r", "logprobs": 1,
        "prompt_logprobs": 1});
    expect![[]].assert_eq(&text(COMPLETIONS, body).await);
}

#[tokio::test]
async fn streamed_tokens() {
    let params = json!({"max_tokens": 2, "seed": 1, "ignore_eos": true, "logprobs": 1});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r", "stream": true,
        "return_token_ids": true, "stream_options": {"include_usage": true}});
    streamed(GENERATE, body, expect![[]]).await;
}

#[tokio::test]
async fn tokens_at_once() {
    let params = json!({"max_tokens": 1, "seed": 1, "logprobs": 2, "prompt_logprobs": 1, "detokenize": false});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r"});
    expect![[]].assert_eq(&text(GENERATE, body).await);
}

#[tokio::test]
async fn tokens_and_text() {
    let params = json!({"max_tokens": 2, "seed": 1, "ignore_eos": true, "logprobs": 1});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r", "output_mode": "text"});
    expect![[]].assert_eq(&text(GENERATE, body).await);
}

#[tokio::test]
async fn a_rendered_chat() {
    let body = chat(json!({"logprobs": false, "top_logprobs": 0, "model": "fake-model"}));
    expect![[]].assert_eq(&text("/v1/chat/completions/render", body).await);
}
