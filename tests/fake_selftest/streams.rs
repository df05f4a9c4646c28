use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel};
use super::{COMPLETIONS, ok};

/// The events of a completion's stream, `[DONE]` left out after checking that it is the last.
pub async fn events(fake: &FakeVllm, body: &Value) -> Vec<Value> {
    events_of(fake, COMPLETIONS, body).await
}

/// As [`events`], of any path.
pub async fn events_of(fake: &FakeVllm, path: &str, body: &Value) -> Vec<Value> {
    let lines = raw_events(fake, path, body).await;
    lines.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// As [`events_of`], byte for byte.
pub async fn raw_events(fake: &FakeVllm, path: &str, body: &Value) -> Vec<String> {
    let reply = reqwest::Client::new().post(fake.url() + path).json(body).send().await.unwrap();
    let status = reply.status();
    let content_type = reply.headers()["content-type"].to_str().unwrap().to_owned();
    let text = reply.text().await.unwrap();
    assert!(content_type.starts_with("text/event-stream"), "{status}: {text}");
    let mut events: Vec<String> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events
}

fn request() -> Value {
    json!({"prompt": [1, 2], "max_tokens": 6, "seed": 5, "ignore_eos": true, "stream": true, "logprobs": 1,
        "return_token_ids": true})
}

#[tokio::test]
async fn a_stream_says_token_by_token_what_a_reply_says_at_once() {
    let fake = FakeVllm::start_default().await;
    let mut whole = request();
    whole["stream"] = json!(false);
    let whole = ok(&fake, COMPLETIONS, whole).await["choices"][0].clone();
    let chunks = events(&fake, &request()).await;
    assert_eq!(chunks.len(), 6);

    let join = |field: &str| -> Vec<Value> {
        chunks.iter().flat_map(|chunk| chunk["choices"][0][field].as_array().unwrap().clone()).collect()
    };
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!((json!(join("token_ids")), json!(text)), (whole["token_ids"].clone(), whole["text"].clone()));
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let parts = chunks.iter().flat_map(|chunk| chunk["choices"][0]["logprobs"][field].as_array().unwrap().clone());
        assert_eq!(parts.collect::<Vec<_>>(), *whole["logprobs"][field].as_array().unwrap(), "{field}");
    }
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert!(others.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert_eq!(chunks[0]["choices"][0]["prompt_token_ids"], json!([1, 2]));
    assert!(chunks[1]["choices"][0]["prompt_token_ids"].is_null() && chunks[1].get("usage").is_none());
}

#[tokio::test]
async fn usage_comes_last_or_with_every_chunk() {
    let fake = FakeVllm::start_default().await;
    let mut body = request();
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let chunks = events(&fake, &body).await;
    assert_eq!(chunks[2]["usage"], json!({"prompt_tokens": 2, "total_tokens": 5, "completion_tokens": 3}));
    let last = &chunks[6];
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens_details"]), (&json!([]), &json!({"cached_tokens": 0})));
}

#[tokio::test]
async fn a_server_may_send_several_tokens_in_a_chunk() {
    let fake = FakeVllm::start(FakeConfig { stream_interval: 3, ..FakeConfig::default() }).await;
    let sizes: Vec<usize> = events(&fake, &request())
        .await
        .iter()
        .map(|chunk| chunk["choices"][0]["token_ids"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [1, 3, 2]);
}

#[tokio::test]
async fn an_error_of_the_engine_is_an_event_of_a_stream() {
    let fake = FakeVllm::start_default().await;
    let mut body = request();
    body["logprobs"] = json!(30);
    let chunks = events(&fake, &body).await;
    assert_eq!((chunks.len(), &chunks[0]["error"]["param"]), (1, &json!("logprobs")));
}

#[tokio::test]
async fn text_that_may_begin_a_stop_string_is_held_back() {
    // Only 'a' (1), 'b' (2) and 'c' (3) are ever said.
    let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
    let fake = FakeVllm::start(FakeConfig { language, ..FakeConfig::default() }).await;
    for seed in 0..20 {
        let mut body = json!({"prompt": [1], "max_tokens": 40, "seed": seed, "allowed_token_ids": [1, 2, 3],
            "stop": ["abca", "cc"], "stream": true});
        let chunks = events(&fake, &body).await;
        let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
        body["stream"] = json!(false);
        let whole = ok(&fake, COMPLETIONS, body).await["choices"][0].clone();
        assert_eq!(whole["text"], text);
        assert!(!text.contains("abca") && !text.contains("cc"));
        let stop = chunks.last().unwrap()["choices"][0]["stop_reason"].clone();
        assert_eq!(whole["stop_reason"], stop);
        assert!(stop == "abca" || stop == "cc" || whole["finish_reason"] == "length");
    }
}

#[tokio::test]
async fn several_choices_share_a_stream() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [[1, 2], [3]], "n": 2, "max_tokens": 2, "ignore_eos": true, "stream": true});
    let chunks = events(&fake, &body).await;
    let mut count = [0; 4];
    chunks.iter().for_each(|chunk| count[chunk["choices"][0]["index"].as_u64().unwrap() as usize] += 1);
    assert_eq!(count, [2; 4]);
}
