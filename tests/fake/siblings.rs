//! Rollouts of one group draft from each other while they run.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::exactness::ids;
use super::rig::{COMPLETIONS, Plan, Rig, endless, greedy};
use super::support::fake_vllm::FakeConfig;
use super::support::nobody::Nobody;

const TOKENS: usize = 12;
/// Tokens that a sibling has when it is stopped.
const KNOWN: usize = 9;

async fn rig() -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    Plan::new(config).drafters(Arc::new(Nobody)).flags("--suffix").start().await
}

fn accepted(rig: &Rig) -> f64 {
    rig.metric("sidedraft_accepted_tokens_total", "\"suffix\"")
}

/// The answer of a rollout of this salt, and the drafts of others' and its own text that it kept.
async fn drafted(rig: &Rig, salt: &str) -> (Vec<Vec<u32>>, f64) {
    let before = accepted(rig);
    let mut body = greedy(TOKENS);
    body["cache_salt"] = json!(salt);
    let answer = ids(&rig.complete(&body).await);
    (answer, accepted(rig) - before)
}

/// Reads a stream until it has told so many tokens.
async fn read(mut stream: impl Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin, tokens: usize) {
    let mut text = String::new();
    let mut told = 0;
    while told < tokens {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        while let Some(end) = text.find("\n\n") {
            let event: Value = serde_json::from_str(text[..end].strip_prefix("data: ").unwrap()).unwrap();
            told += event["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
            text.drain(..end + 2);
        }
    }
}

#[tokio::test]
async fn a_rollout_drafts_what_a_sibling_that_still_runs_has_said() {
    let rig = rig().await;
    let (answer, alone) = drafted(&rig, "stranger").await;
    // The first call brings the first token, the second is the sibling's stream.
    let (first, stream) = (rig.fake.hang_next(COMPLETIONS), rig.fake.hang_stream_after(COMPLETIONS, KNOWN - 1));
    let mut body = greedy(TOKENS);
    (body["cache_salt"], body["stream"]) = (json!("group"), json!(true));
    first.release();
    let sibling = rig.sidecar.post(COMPLETIONS, &body).await.bytes_stream();
    let mut sibling = Box::pin(sibling);
    read(&mut sibling, KNOWN).await;
    stream.reached().await;

    let (again, with_sibling) = drafted(&rig, "group").await;
    assert_eq!(again, answer);
    assert!(with_sibling >= alone + 4.0, "{with_sibling} drafts kept, {alone} without a sibling");
    let (again, beside) = drafted(&rig, "another stranger").await;
    assert_eq!((again, beside), (answer, alone), "nobody else sees them");

    stream.release();
    read(&mut sibling, TOKENS - KNOWN).await;
}
