//! `/inference/v1/generate` in chunks.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, FakeVllm};
use super::{GENERATE, id_list, ok, refusal};

fn request(stream: bool) -> Value {
    let params = json!({"max_tokens": 5, "seed": 4, "ignore_eos": true, "logprobs": 2, "n": 2, "temperature": 1.0});
    json!({"token_ids": [1, 2], "sampling_params": params, "stream": stream, "return_token_ids": true})
}

#[tokio::test]
async fn chunks_add_up_to_the_reply() {
    let fake = FakeVllm::start_default().await;
    let whole = ok(&fake, GENERATE, request(false)).await;
    let chunks = events_of(&fake, GENERATE, &request(true)).await;
    assert_eq!((chunks.len(), &whole["prompt_token_ids"]), (2 * 5, &json!([1, 2])));
    for index in 0..2 {
        let mine: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|c| c["index"] == index).collect();
        let expected = &whole["choices"][index];
        let ids: Vec<u32> = mine.iter().flat_map(|choice| id_list(&choice["token_ids"])).collect();
        let content: Vec<Value> =
            mine.iter().flat_map(|choice| choice["logprobs"]["content"].as_array().unwrap().clone()).collect();
        assert_eq!(
            (json!(ids), json!(content)),
            (expected["token_ids"].clone(), expected["logprobs"]["content"].clone())
        );
        let (last, others) = mine.split_last().unwrap();
        assert_eq!(last["weight_versions"], json!([{"version": FIRST_WEIGHTS, "start": 0, "end": 5}]));
        assert_eq!(last["weight_versions"], expected["weight_versions"]);
        assert!(others.iter().all(|choice| choice["weight_versions"].is_null()));
    }
    assert_eq!(chunks[0]["prompt_token_ids"], json!([1, 2]));
    assert!(chunks[1].get("prompt_token_ids").is_none());
}

#[tokio::test]
async fn ranks_are_those_of_the_language() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, GENERATE, request(false)).await;
    let raw = fake.language().raw(&[1, 2]);
    let entry = &reply["choices"][0]["logprobs"]["content"][0];
    let own = raw[entry["token_id"].as_u64().unwrap() as usize];
    assert_eq!(entry["rank"], raw.iter().filter(|&&p| p >= own).count());
}

#[tokio::test]
async fn usage_comes_when_it_is_asked_for() {
    let fake = FakeVllm::start(FakeConfig { force_include_usage: true, ..FakeConfig::default() }).await;
    let silent = events_of(&fake, GENERATE, &request(true)).await;
    assert!(silent.iter().all(|chunk| chunk["usage"].is_null()), "the server's flag is not for this endpoint");
    let mut body = request(true);
    body["stream_options"] = json!({"include_usage": true});
    let chunks = events_of(&fake, GENERATE, &body).await;
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(10)));
}

#[tokio::test]
async fn text_can_come_along() {
    let fake = FakeVllm::start_default().await;
    let mut body = request(true);
    body["output_mode"] = json!("text");
    body["sampling_params"]["n"] = json!(1);
    let chunks = events_of(&fake, GENERATE, &body).await;
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    body["stream"] = json!(false);
    assert_eq!(ok(&fake, GENERATE, body.clone()).await["choices"][0]["text"], text);
    body["sampling_params"]["detokenize"] = json!(false);
    assert_eq!(refusal(&fake, GENERATE, body).await.0, 400);
}

#[tokio::test]
async fn without_detokenizing_prompt_rows_have_no_text() {
    let fake = FakeVllm::start_default().await;
    let mut body = request(false);
    body["sampling_params"]["prompt_logprobs"] = json!(1);
    assert!(ok(&fake, GENERATE, body.clone()).await["prompt_logprobs"][1]["2"]["decoded_token"].is_string());
    body["sampling_params"]["detokenize"] = json!(false);
    assert!(ok(&fake, GENERATE, body).await["prompt_logprobs"][1]["2"]["decoded_token"].is_null());
}

#[tokio::test]
async fn an_error_of_the_engine_is_an_event() {
    let fake = FakeVllm::start_default().await;
    let mut body = request(true);
    body["sampling_params"]["logprobs"] = json!(30);
    let chunks = events_of(&fake, GENERATE, &body).await;
    assert_eq!((chunks.len(), &chunks[0]["error"]["param"]), (1, &json!("logprobs")));
}
