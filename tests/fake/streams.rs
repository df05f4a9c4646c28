//! What streams say besides tokens.

use serde_json::{Value, json};

use super::compare::{comparable, events, events_from};
use super::rig::{COMPLETIONS, Rig, greedy};

fn streamed(fields: Value) -> Value {
    let mut body = greedy(9);
    body["stream"] = json!(true);
    for (field, value) in fields.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

async fn directly(rig: &Rig, body: &Value) -> Vec<Value> {
    events_from(rig.sidecar.http.post(rig.fake.url() + COMPLETIONS).json(body).send().await.unwrap()).await
}

#[tokio::test]
async fn the_usage_comes_last_where_it_is_asked_for() {
    let rig = Rig::usual().await;
    let body = streamed(json!({"stream_options": {"include_usage": true}}));
    let (through, direct) = (events(&rig, &body).await, directly(&rig, &body).await);
    assert_eq!(comparable(through.last().unwrap().clone()), comparable(direct.last().unwrap().clone()));
    assert!(through[..through.len() - 1].iter().all(|chunk| chunk.get("usage").is_none()));
    let plain = events(&rig, &streamed(json!({}))).await;
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none()));
    assert_eq!(
        plain.last().unwrap()["system_fingerprint"],
        directly(&rig, &streamed(json!({}))).await.last().unwrap()["system_fingerprint"]
    );
}

#[tokio::test]
async fn the_usage_so_far_is_in_every_chunk_where_it_is_asked_for() {
    let rig = Rig::usual().await;
    let body = streamed(json!({"stream_options": {"include_usage": true, "continuous_usage_stats": true}}));
    let chunks = events(&rig, &body).await;
    let mut count = 0;
    for chunk in &chunks[..chunks.len() - 1] {
        count += chunk["choices"][0]["token_ids"].as_array().unwrap().len();
        let usage = json!({"prompt_tokens": 3, "total_tokens": 3 + count, "completion_tokens": count});
        assert_eq!(chunk["usage"], usage);
    }
    let last = directly(&rig, &body).await.pop().unwrap();
    assert_eq!(comparable(chunks.last().unwrap().clone()), comparable(last));
}

/// The keys of a chunk and of its choice.
fn keys(chunk: &Value) -> Vec<String> {
    let of = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    [of(chunk), of(&chunk["choices"][0])].concat()
}

#[tokio::test]
async fn chunks_have_the_servers_fields() {
    let rig = Rig::usual().await;
    for fields in [json!({}), json!({"logprobs": 1}), json!({"return_token_ids": false})] {
        let body = streamed(fields);
        let (through, direct) = (events(&rig, &body).await, directly(&rig, &body).await);
        assert_eq!(keys(&through[0]), keys(&direct[0]));
        assert_eq!(keys(&through[1]), keys(&direct[1]));
        assert_eq!(keys(through.last().unwrap()), keys(direct.last().unwrap()));
    }
}

#[tokio::test]
async fn several_choices_share_a_stream_and_each_is_whole() {
    let rig = Rig::usual().await;
    let body = streamed(json!({"temperature": 1, "n": 3, "prompt": [[1, 2], [3]], "ignore_eos": true}));
    let chunks = events(&rig, &body).await;
    let mut counts = [0; 6];
    let mut finishes = [0; 6];
    for choice in chunks.iter().map(|chunk| &chunk["choices"][0]) {
        let index = choice["index"].as_u64().unwrap() as usize;
        counts[index] += choice["token_ids"].as_array().unwrap().len();
        finishes[index] += usize::from(choice["finish_reason"] == "length");
    }
    assert_eq!((counts, finishes), ([9; 6], [1; 6]));
}

#[tokio::test]
async fn several_choices_come_in_the_order_of_their_prompts() {
    let rig = Rig::usual().await;
    let body = json!({"prompt": [[1, 2], [3]], "n": 3, "max_tokens": 4, "ignore_eos": true, "return_token_ids": true});
    let reply = rig.complete(&body).await;
    let prompts: Vec<&Value> =
        reply["choices"].as_array().unwrap().iter().map(|choice| &choice["prompt_token_ids"]).collect();
    assert_eq!(json!(prompts), json!([[1, 2], [1, 2], [1, 2], [3], [3], [3]]));
    assert_eq!(reply["usage"]["prompt_tokens"], rig.complete_directly(&body).await["usage"]["prompt_tokens"]);
    assert_eq!(reply["usage"]["completion_tokens"], 24);
}

#[tokio::test]
async fn a_request_id_names_the_reply() {
    let rig = Rig::usual().await;
    let mut body = greedy(3);
    body["request_id"] = json!("mine");
    assert_eq!(rig.complete(&body).await["id"], "cmpl-mine");
    let by_header = rig.sidecar.http.post(format!("{}{COMPLETIONS}", rig.sidecar.url)).header("x-request-id", "hers");
    let reply: Value = by_header.json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["id"], "cmpl-hers", "a header wins");
    let named = rig.fake.requests().iter().filter(|request| request.headers.contains_key("x-request-id")).count();
    assert_eq!(named, 0, "the calls of a rollout must not share a name");
}
