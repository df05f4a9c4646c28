//! What the fake vLLM promises to the tests that use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod aborts;
mod adapters;
mod cached_rows;
mod chat;
mod chat_options;
mod chat_reasoning;
mod costs;
mod distribution;
mod exact_shapes;
mod faults;
mod generate_streams;
mod given_ids;
mod lifecycle;
mod limits;
mod parameters;
mod pauses;
mod probing;
mod profiles;
mod prompts_of_chats;
mod shapes;
mod statistics;
mod step_plans;
mod streams;
mod text;
mod timelines;
mod updates;
mod weights;

use http::StatusCode;
use serde_json::Value;
use support::fake_vllm::FakeVllm;

const COMPLETIONS: &str = "/v1/completions";
const GENERATE: &str = "/inference/v1/generate";
const CHAT: &str = "/v1/chat/completions";

/// Posts `body` to `path`; the body of the reply is null where it is not JSON.
async fn post(fake: &FakeVllm, path: &str, body: &Value) -> (StatusCode, Value) {
    let reply = reqwest::Client::new().post(fake.url() + path).json(body).send().await.unwrap();
    let status = reply.status();
    (status, serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap_or(Value::Null))
}

/// Status and message of a request that must fail.
async fn refusal(fake: &FakeVllm, path: &str, body: Value) -> (u16, String) {
    let (status, reply) = post(fake, path, &body).await;
    (status.as_u16(), reply["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// Posts nothing to `path`, which must succeed.
async fn tell(fake: &FakeVllm, path: &str) -> Value {
    ok(fake, path, serde_json::json!({})).await
}

/// A list of ids.
fn id_list(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The reply to a request that must succeed.
async fn ok(fake: &FakeVllm, path: &str, body: Value) -> Value {
    let (status, reply) = post(fake, path, &body).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    reply
}

async fn get(fake: &FakeVllm, path: &str) -> (StatusCode, String) {
    let reply = reqwest::get(fake.url() + path).await.unwrap();
    (reply.status(), reply.text().await.unwrap())
}

/// `len` ids that spell no particular text, different for each `salt`.
fn ids(len: usize, salt: usize) -> Vec<u32> {
    (0..len).map(|i| u32::try_from((i * 7 + salt * 13 + i * i) % 40).unwrap()).collect()
}
