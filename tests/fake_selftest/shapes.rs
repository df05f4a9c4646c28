//! The keys of a reply, as vLLM 0.32.0 was seen to send them.

use serde_json::{Value, json};

use super::streams::events;
use super::support::fake_vllm::FakeVllm;
use super::{COMPLETIONS, GENERATE, ok};

fn assert_keys(value: &Value, expected: &str) {
    let mut expected: Vec<&str> = expected.split(' ').collect();
    expected.sort_unstable();
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_completion() {
    let reply = ok(&FakeVllm::start_default().await, COMPLETIONS, json!({"prompt": [1], "logprobs": 1})).await;
    assert_keys(
        &reply,
        "id object created model choices service_tier system_fingerprint usage kv_transfer_params ec_transfer_params metrics",
    );
    assert_keys(
        &reply["choices"][0],
        "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids routed_experts",
    );
    assert_keys(&reply["choices"][0]["logprobs"], "text_offset token_logprobs tokens top_logprobs");
    assert_keys(
        &reply["usage"],
        "prompt_tokens total_tokens completion_tokens prompt_tokens_details completion_tokens_details",
    );
    assert_keys(&reply["usage"]["prompt_tokens_details"], "cached_tokens created_cache_tokens multimodal_tokens");
}

#[tokio::test]
async fn a_streamed_completion() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [1], "max_tokens": 2, "ignore_eos": true, "stream": true});
    let chunks = events(&fake, &body).await;
    assert_keys(&chunks[0], "id object created model choices");
    assert_keys(&chunks[0]["choices"][0], "index text logprobs finish_reason stop_reason prompt_token_ids token_ids");
    assert_keys(&chunks[1], "id object created model choices system_fingerprint");
}

#[tokio::test]
async fn generated_tokens() {
    let fake = FakeVllm::start_default().await;
    let params = json!({"logprobs": 2, "prompt_logprobs": 2, "max_tokens": 1});
    let reply = ok(&fake, GENERATE, json!({"token_ids": [1, 2], "sampling_params": params})).await;
    assert_keys(
        &reply,
        "request_id model created usage prompt_logprobs prompt_token_id_logprobs prompt_token_ids mm_placeholders metrics \
         kv_transfer_params ec_transfer_params output_mode choices",
    );
    assert_keys(
        &reply["choices"][0],
        "index finish_reason stop_reason token_ids routed_experts sampling_mask weight_versions logprobs",
    );
    assert_keys(&reply["choices"][0]["logprobs"]["content"][0], "token_id logprob rank top_logprobs");
    assert_keys(&reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"][1], "token_id logprob rank");
    assert_keys(&reply["prompt_logprobs"][1]["2"], "logprob rank decoded_token");
}
