//! A server with a reasoning parser: what stands before `</think>` is reasoning.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel};
use super::{CHAT, id_list, ok};

const THINK: u32 = 61;
const END: u32 = 62;

async fn fake() -> FakeVllm {
    let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
    FakeVllm::start(FakeConfig { language, reasoning_parser: true, ..FakeConfig::default() }).await
}

/// Chats of which some think, some never end to, and some answer.
fn requests() -> impl Iterator<Item = Value> {
    (0..40).map(|seed| {
        json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "seed": seed, "logprobs": true,
            "allowed_token_ids": [1, 2, THINK, END], "return_token_ids": true})
    })
}

#[tokio::test]
async fn the_marks_are_tokens() {
    let fake = fake().await;
    assert_eq!(fake.codec().decode(&[THINK, 1, END], true), "<think>a</think>");
}

#[tokio::test]
async fn reasoning_and_answer_are_told_apart_and_reasoning_is_counted() {
    let fake = fake().await;
    let mut counted = 0;
    for body in requests() {
        let reply = ok(&fake, CHAT, body).await;
        let ids = id_list(&reply["choices"][0]["token_ids"]);
        let message = &reply["choices"][0]["message"];
        let text = fake.codec().decode(&ids, true);
        let text = text.split_once("<think>").map_or(&*text, |(_, rest)| rest);
        match text.split_once("</think>") {
            None => assert_eq!((&message["reasoning"], &message["content"]), (&json!(text), &Value::Null)),
            Some((reasoning, "")) => {
                assert_eq!((&message["reasoning"], &message["content"]), (&json!(reasoning), &Value::Null))
            }
            Some((reasoning, content)) => {
                assert_eq!((&message["reasoning"], &message["content"]), (&json!(reasoning), &json!(content)));
            }
        }
        let told = reply["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert!(told == 0 || ids.contains(&THINK), "without a beginning nothing is counted");
        counted += told;
    }
    assert!(counted > 0);
}

#[tokio::test]
async fn a_stream_tells_them_apart_too() {
    let fake = fake().await;
    let (mut reasoned, mut answered) = (false, false);
    for mut body in requests() {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let chunks = events_of(&fake, CHAT, &body).await;
        let mut ended = false;
        for choice in chunks[1..chunks.len() - 1].iter().map(|chunk| &chunk["choices"][0]) {
            let ids = id_list(&choice["token_ids"]);
            let delta = choice["delta"].as_object().unwrap();
            match ids[..] {
                [THINK | END] if !ended => assert!(delta.is_empty(), "a mark says nothing, but its ids are told"),
                _ if ended => answered |= delta.contains_key("content"),
                _ => reasoned |= delta.contains_key("reasoning"),
            }
            assert_eq!(delta.contains_key("reasoning"), !ended && ids != [THINK] && ids != [END]);
            ended |= ids.contains(&END);
        }
        assert!(chunks.last().unwrap()["usage"]["completion_tokens_details"]["reasoning_tokens"].is_u64());
    }
    assert!(reasoned && answered);
}

#[tokio::test]
async fn hidden_reasoning_hides_its_tokens() {
    let fake = fake().await;
    for mut body in requests() {
        let shown = ok(&fake, CHAT, body.clone()).await["choices"][0].clone();
        body["include_reasoning"] = json!(false);
        let hidden = ok(&fake, CHAT, body.clone()).await["choices"][0].clone();
        assert_eq!(hidden["message"]["content"], shown["message"]["content"]);
        for (place, field) in [(&hidden["message"], "reasoning"), (&hidden, "logprobs"), (&hidden, "token_ids")] {
            assert!(place[field].is_null());
        }
        body["stream"] = json!(true);
        let chunks = events_of(&fake, CHAT, &body).await;
        body["include_reasoning"] = json!(true);
        let open = events_of(&fake, CHAT, &body).await;
        let content = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        let expected: String = open.iter().map(content).collect();
        let mut text = String::new();
        for choice in chunks[1..].iter().map(|chunk| &chunk["choices"][0]) {
            assert!(choice["logprobs"].is_null() && choice["token_ids"].is_null());
            assert!(choice["delta"]["reasoning"].is_null());
            text += choice["delta"]["content"].as_str().unwrap_or_default();
        }
        // Not the whole reply's: that drops what stands before a later `<think>`.
        assert_eq!(text, expected);
        assert!(!chunks.last().unwrap()["choices"][0]["finish_reason"].is_null());
    }
}

#[tokio::test]
async fn a_server_without_a_parser_splits_nothing() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "include_reasoning": false,
        "logprobs": true, "return_token_ids": true});
    let reply = ok(&fake, CHAT, body).await;
    assert!(reply["usage"]["completion_tokens_details"].is_null());
    assert!(reply["choices"][0]["logprobs"].is_object() && reply["choices"][0]["token_ids"].is_array());
}
