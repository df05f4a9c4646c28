//! What is not speculated is the server's to answer, byte for byte, and counted by its reason.

use http::StatusCode;
use serde_json::{Value, json};

use super::drafters::often_right;
use super::rig::{COMPLETIONS, Plan, Rig};
use super::support::fake_vllm::FakeConfig;

/// A server whose answers do not depend on what it answered before.
async fn rig() -> Rig {
    let config = FakeConfig { prefix_caching: false, max_logprobs: -1, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    Plan::new(config).drafters(drafters).start().await
}

fn request(fields: &Value) -> Value {
    let mut body = json!({"prompt": [5, 6], "temperature": 0, "max_tokens": 4, "request_id": "x"});
    for (field, value) in fields.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

async fn assert_forwarded(rig: &Rig, fields: &Value, reason: &str) {
    let body = request(fields);
    let before = rig.forwarded(reason);
    let through = rig.through(COMPLETIONS, &body).await;
    assert_eq!(through, rig.direct(COMPLETIONS, &body).await, "{fields}");
    assert!((rig.forwarded(reason) - before - 1.0).abs() < 1e-9, "{fields} was not forwarded for {reason}");
    let sent = rig.fake.requests_to(COMPLETIONS);
    assert_eq!(sent[sent.len() - 2].json(), body);
}

#[tokio::test]
async fn every_feature_that_is_not_speculated() {
    let rig = rig().await;
    for (fields, reason) in [
        (json!({"echo": true}), "echo"),
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"presence_penalty": -0.5}), "presence_penalty"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"use_beam_search": true}), "beam_search"),
        (json!({"watermarking": {}}), "watermarking"),
        (json!({"truncate_prompt_tokens": 3}), "truncate_prompt_tokens"),
        (json!({"logprob_token_ids": [1]}), "logprob_token_ids"),
        (json!({"logprobs": -1}), "all_logprobs"),
        (json!({"prompt_logprobs": -1}), "all_logprobs"),
        (json!({"bad_words": ["ab"]}), "bad_words"),
        (json!({"prompt_embeds": "x"}), "prompt_embeds"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"structured_outputs": {"regex": "a"}}), "structured_outputs"),
        (json!({"kv_transfer_params": {}}), "kv_transfer_params"),
        (json!({"ec_transfer_params": {}}), "ec_transfer_params"),
        (json!({"vllm_xargs": {}}), "vllm_xargs"),
        (json!({"repetition_detection": {}}), "repetition_detection"),
        (json!({"thinking_token_budget": 5}), "thinking_token_budget"),
        (json!({"stream": true, "stream_interval": 2}), "stream_interval"),
        (json!({"stream": true, "stream_options": {"include_usage": true, "new": 1}}), "stream_options"),
        (json!({"seed": 5, "temperature": 1}), "seed"),
        (json!({"seed": 5, "temperature": null}), "seed"),
    ] {
        assert_forwarded(&rig, &fields, reason).await;
    }
    assert!(rig.outcome("speculated").abs() < 1e-9);
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_counted_by_its_name() {
    let rig = rig().await;
    assert_forwarded(&rig, &json!({"frobnicate": {"a": [1]}}), "unknown_field").await;
    assert_forwarded(&rig, &json!({"frobnicate": 2, "echo": true}), "unknown_field").await;
    assert!((rig.metric("sidedraft_unknown_fields_total", "field=\"frobnicate\"") - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_body_longer_than_the_limit_arrives_whole() {
    let config = FakeConfig { prefix_caching: false, ..FakeConfig::default() };
    let rig = Plan::new(config).flags("--max-parsed-bytes 400").start().await;
    let prompt = vec![7; 2000];
    assert_forwarded(&rig, &json!({ "prompt": prompt }), "body_too_long").await;
    let short = rig.through(COMPLETIONS, &request(&json!({}))).await;
    assert_eq!(short.0, StatusCode::OK);
    assert!((rig.outcome("speculated") - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_body_that_is_not_plain_json_arrives_as_it_is() {
    let rig = rig().await;
    let url = format!("{}{COMPLETIONS}", rig.sidecar.url);
    let text = request(&json!({})).to_string();
    for (header, value) in [("content-type", "text/plain"), ("content-encoding", "identity")] {
        let request = rig.sidecar.http.post(&url).body(text.clone()).header("content-type", "application/json");
        let request = if header == "content-type" {
            rig.sidecar.http.post(&url).body(text.clone()).header(header, value)
        } else {
            request.header(header, value)
        };
        request.send().await.unwrap();
        let received = rig.fake.requests_to(COMPLETIONS).pop().unwrap();
        assert_eq!((&received.body[..], received.headers[header].to_str().unwrap()), (text.as_bytes(), value));
    }
    assert!((rig.forwarded("content_type") - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn without_a_drafter_everything_is_forwarded() {
    let rig =
        Plan::new(FakeConfig { prefix_caching: false, ..FakeConfig::default() }).flags("--drafter off").start().await;
    assert_forwarded(&rig, &json!({}), "no_drafter").await;
}

#[tokio::test]
async fn with_another_tokenizer_than_the_servers_everything_is_forwarded() {
    use super::support::fake_vllm::{FakeVllm, TextCodec};
    use super::support::harness::Harness;
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    let other = TextCodec::new(50).write(folder.path());
    let sidecar = Harness::start(&fake.url(), &["--tokenizer", other.to_str().unwrap()]).await;
    sidecar.complete(&request(&json!({}))).await;
    assert!((sidecar.metric("sidedraft_requests_total", "reason=\"tokenizer\"") - 1.0).abs() < 1e-9);
}
