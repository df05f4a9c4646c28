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
    expect![[r#"{"id":"chatcmpl-r","object":"chat.completion","created":1760000000,"model":"fake-model","choices":[{"index":0,"message":{"role":"assistant","content":"\"5","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":{"content":[{"token":"\"","logprob":-3.6761884689331055,"bytes":[34],"top_logprobs":[{"token":"\"","logprob":-3.6761884689331055,"bytes":[34]}]},{"token":"5","logprob":-2.011895179748535,"bytes":[53],"top_logprobs":[{"token":"5","logprob":-2.011895179748535,"bytes":[53]}]}]},"finish_reason":"length","stop_reason":null,"token_ids":[56,36],"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-fake","usage":{"prompt_tokens":18,"total_tokens":20,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":16,"multimodal_tokens":null},"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":[21,19,5,18,0,8,9,29,1,19,19,9,19,20,1,14,20,0],"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}"#]].assert_eq(&text(CHAT, chat(json!({"return_token_ids": true}))).await);
}

#[tokio::test]
async fn a_streamed_chat() {
    streamed(CHAT, chat(json!({"stream": true})), expect![[r#"
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"content":"\""},"logprobs":{"content":[{"token":"\"","logprob":-3.6761884689331055,"bytes":[34],"top_logprobs":[{"token":"\"","logprob":-3.6761884689331055,"bytes":[34]}]}]},"finish_reason":null,"token_ids":null}]}
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"content":"5"},"logprobs":{"content":[{"token":"5","logprob":-2.011895179748535,"bytes":[53],"top_logprobs":[{"token":"5","logprob":-2.011895179748535,"bytes":[53]}]}]},"finish_reason":"length","stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-0.32.0-fake"}
    "#]]).await;
}

#[tokio::test]
async fn a_streamed_chat_with_usage_and_ids() {
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let more = json!({"stream": true, "stream_options": options, "return_token_ids": true, "logprobs": false,
        "top_logprobs": 0});
    streamed(CHAT, chat(more), expect![[r#"
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":18,"total_tokens":18,"completion_tokens":0,"completion_tokens_details":null},"prompt_token_ids":[21,19,5,18,0,8,9,29,1,19,19,9,19,20,1,14,20,0],"prompt_text":null}
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"content":"\""},"logprobs":null,"finish_reason":null,"token_ids":[56]}],"usage":{"prompt_tokens":18,"total_tokens":19,"completion_tokens":1,"completion_tokens_details":null}}
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[{"index":0,"delta":{"content":"5"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":[36]}],"usage":{"prompt_tokens":18,"total_tokens":20,"completion_tokens":2,"completion_tokens_details":null}}
        {"id":"chatcmpl-r","object":"chat.completion.chunk","created":1760000000,"model":"fake-model","choices":[],"usage":{"prompt_tokens":18,"total_tokens":20,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":16}},"system_fingerprint":"vllm-0.32.0-fake"}
    "#]]).await;
}

#[tokio::test]
async fn a_completion() {
    let body = json!({"prompt": [1, 2], "max_tokens": 2, "seed": 1, "ignore_eos": true, "request_id": "r", "logprobs": 1,
        "prompt_logprobs": 1});
    expect![[r#"{"id":"cmpl-r","object":"text_completion","created":1760000000,"model":"fake-model","choices":[{"index":0,"text":"(!","logprobs":{"text_offset":[0,1],"token_logprobs":[-3.3969550132751465,-2.3393120765686035],"tokens":["(","!"],"top_logprobs":[{"(":-3.3969550132751465,"he":-1.8061294555664062},{"!":-2.3393120765686035,"i":-1.859415054321289}]},"finish_reason":"length","stop_reason":null,"token_ids":null,"prompt_logprobs":[null,{"2":{"logprob":-6.03688907623291,"rank":47,"decoded_token":"b"},"19":{"logprob":-1.0488704442977905,"rank":1,"decoded_token":"s"}}],"prompt_token_ids":null,"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-fake","usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":null,"multimodal_tokens":null},"completion_tokens_details":null},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}"#]].assert_eq(&text(COMPLETIONS, body).await);
}

#[tokio::test]
async fn streamed_tokens() {
    let params = json!({"max_tokens": 2, "seed": 1, "ignore_eos": true, "logprobs": 1});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r", "stream": true,
        "return_token_ids": true, "stream_options": {"include_usage": true}});
    streamed(GENERATE, body, expect![[r#"
        {"request_id":"generate-tokens-r","usage":null,"prompt_token_ids":[1,2],"output_mode":"tokens","choices":[{"index":0,"finish_reason":null,"stop_reason":null,"token_ids":[62],"routed_experts":null,"sampling_mask":null,"weight_versions":null,"logprobs":{"content":[{"token_id":62,"logprob":-3.3969550132751465,"rank":9,"top_logprobs":[{"token_id":62,"logprob":-3.3969550132751465,"rank":9}]}]}}]}
        {"request_id":"generate-tokens-r","usage":null,"output_mode":"tokens","choices":[{"index":0,"finish_reason":"length","stop_reason":null,"token_ids":[30],"routed_experts":null,"sampling_mask":null,"weight_versions":[{"version":"default","start":0,"end":2}],"logprobs":{"content":[{"token_id":30,"logprob":-2.3393120765686035,"rank":2,"top_logprobs":[{"token_id":30,"logprob":-2.3393120765686035,"rank":2}]}]}}]}
        {"request_id":"generate-tokens-r","usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0}},"output_mode":"tokens","choices":[]}
    "#]]).await;
}

#[tokio::test]
async fn tokens_at_once() {
    let params = json!({"max_tokens": 1, "seed": 1, "logprobs": 2, "prompt_logprobs": 1, "detokenize": false});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r"});
    expect![[r#"{"request_id":"generate-tokens-r","model":"fake-model","created":1760000000,"usage":{"prompt_tokens":2,"total_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":null,"multimodal_tokens":null},"completion_tokens_details":null},"prompt_logprobs":[null,{"2":{"logprob":-6.03688907623291,"rank":47,"decoded_token":null},"19":{"logprob":-1.0488704442977905,"rank":1,"decoded_token":null}}],"prompt_token_id_logprobs":null,"prompt_token_ids":null,"mm_placeholders":null,"metrics":null,"kv_transfer_params":null,"ec_transfer_params":null,"output_mode":"tokens","choices":[{"index":0,"finish_reason":"length","stop_reason":null,"token_ids":[62],"routed_experts":null,"sampling_mask":null,"weight_versions":[{"version":"default","start":0,"end":1}],"logprobs":{"content":[{"token_id":62,"logprob":-3.3969550132751465,"rank":9,"top_logprobs":[{"token_id":62,"logprob":-3.3969550132751465,"rank":9},{"token_id":48,"logprob":-1.8061294555664062,"rank":1}]}]}}]}"#]].assert_eq(&text(GENERATE, body).await);
}

#[tokio::test]
async fn tokens_and_text() {
    let params = json!({"max_tokens": 2, "seed": 1, "ignore_eos": true, "logprobs": 1});
    let body = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r", "output_mode": "text"});
    expect![[r#"{"request_id":"generate-tokens-r","model":"fake-model","created":1760000000,"usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":null,"multimodal_tokens":null},"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_id_logprobs":null,"prompt_token_ids":null,"mm_placeholders":null,"metrics":null,"kv_transfer_params":null,"ec_transfer_params":null,"output_mode":"text","choices":[{"index":0,"finish_reason":"length","stop_reason":null,"token_ids":[62,30],"routed_experts":null,"sampling_mask":null,"weight_versions":[{"version":"default","start":0,"end":2}],"text":"(!","logprobs":{"content":[{"token":"(","logprob":-3.3969550132751465,"bytes":[40],"top_logprobs":[{"token":"(","logprob":-3.3969550132751465,"bytes":[40]}]},{"token":"!","logprob":-2.3393120765686035,"bytes":[33],"top_logprobs":[{"token":"!","logprob":-2.3393120765686035,"bytes":[33]}]}]}}]}"#]].assert_eq(&text(GENERATE, body).await);
}

#[tokio::test]
async fn a_rendered_chat() {
    let body = chat(json!({"logprobs": false, "top_logprobs": 0, "model": "fake-model"}));
    expect![[r#"{"request_id":"chatcmpl-r","token_ids":[21,19,5,18,0,8,9,29,1,19,19,9,19,20,1,14,20,0],"token_offsets":null,"features":null,"content_parts":null,"sampling_params":{"presence_penalty":0.0,"frequency_penalty":0.0,"repetition_penalty":1.0,"temperature":1.0,"top_p":1.0,"min_p":0.0,"seed":1,"stop":[],"stop_token_ids":[],"ignore_eos":true,"max_tokens":2,"output_kind":2,"skip_clone":true,"bad_words":[],"skip_reading_prefix_cache":false},"model":"fake-model","reasoning_ended":null,"reasoning_parser_kwargs":null,"return_token_ids":null,"output_mode":"tokens","stream":false,"stream_options":null,"cache_salt":null,"priority":0,"kv_transfer_params":null,"ec_transfer_params":null}"#]].assert_eq(&text("/v1/chat/completions/render", body).await);
}
