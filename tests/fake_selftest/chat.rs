//! Chat completions: the same tokens, logprobs and chunks as everywhere, in their own words.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel};
use super::{CHAT, id_list, ok};

fn request() -> Value {
    json!({"messages": [{"role": "user", "content": "say it"}], "max_tokens": 6, "seed": 5, "ignore_eos": true,
        "logprobs": true, "top_logprobs": 3, "return_token_ids": true})
}

fn with(key: &str, value: Value) -> Value {
    let mut body = request();
    body[key] = value;
    body
}

#[tokio::test]
async fn the_prompt_is_what_tokenize_says_and_logprobs_are_the_languages() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, CHAT, request()).await;
    let tokenized = ok(&fake, "/tokenize", json!({"messages": request()["messages"]})).await;
    assert_eq!(reply["prompt_token_ids"], tokenized["tokens"]);

    let choice = &reply["choices"][0];
    let mut context = id_list(&reply["prompt_token_ids"]);
    let entries = choice["logprobs"]["content"].as_array().unwrap();
    for (id, entry) in id_list(&choice["token_ids"]).into_iter().zip(entries) {
        let raw = fake.language().raw(&context);
        assert!((entry["logprob"].as_f64().unwrap() - raw[id as usize].ln()).abs() < 1e-5);
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 3, "the token itself counts");
        let token = entry["token"].as_str().unwrap();
        assert_eq!(entry["bytes"], json!(token.as_bytes()));
        context.push(id);
    }
    assert_eq!(entries.len(), 6);
}

#[tokio::test]
async fn a_stream_says_token_by_token_what_a_reply_says_at_once() {
    let fake = FakeVllm::start_default().await;
    let whole = ok(&fake, CHAT, request()).await["choices"][0].clone();
    let chunks = events_of(&fake, CHAT, &with("stream", json!(true))).await;
    assert_eq!(chunks.len(), 1 + 6);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(chunks[0]["prompt_token_ids"].is_array() && chunks[1].get("prompt_token_ids").is_none());

    let choices: Vec<&Value> = chunks[1..].iter().map(|chunk| &chunk["choices"][0]).collect();
    let text: String = choices.iter().map(|choice| choice["delta"]["content"].as_str().unwrap()).collect();
    let ids: Vec<u32> = choices.iter().flat_map(|choice| id_list(&choice["token_ids"])).collect();
    let content: Vec<Value> =
        choices.iter().flat_map(|choice| choice["logprobs"]["content"].as_array().unwrap().clone()).collect();
    assert_eq!((json!(text), json!(ids)), (whole["message"]["content"].clone(), whole["token_ids"].clone()));
    assert_eq!(json!(content), whole["logprobs"]["content"]);
    assert_eq!((&choices[5]["finish_reason"], &choices[5]["stop_reason"]), (&json!("length"), &Value::Null));
    assert!(choices[4].get("stop_reason").is_none());
}

#[tokio::test]
async fn several_choices_each_begin_with_their_role() {
    let fake = FakeVllm::start_default().await;
    let mut body = with("n", json!(3));
    assert_eq!(ok(&fake, CHAT, body.clone()).await["choices"].as_array().unwrap().len(), 3);
    body["stream"] = json!(true);
    let chunks = events_of(&fake, CHAT, &body).await;
    for (index, chunk) in chunks[..3].iter().enumerate() {
        assert_eq!(
            (&chunk["choices"][0]["index"], &chunk["choices"][0]["delta"]["role"]),
            (&json!(index), &json!("assistant"))
        );
    }
    assert_eq!(chunks.len(), 3 + 3 * 6);
}

#[tokio::test]
async fn names_can_be_ids() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, CHAT, with("return_tokens_as_token_ids", json!(true))).await;
    let choice = &reply["choices"][0];
    let first = id_list(&choice["token_ids"])[0];
    let entry = &choice["logprobs"]["content"][0];
    assert_eq!(entry["token"], format!("token_id:{first}"));
    assert_eq!(entry["bytes"], json!(fake.codec().decode(&[first], false).as_bytes()), "the text's bytes");
    let rival = &entry["top_logprobs"][0];
    assert_eq!(rival["bytes"], json!(rival["token"].as_str().unwrap().as_bytes()), "the name's bytes");
}

#[tokio::test]
async fn prompt_rows_come_in_full() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, CHAT, with("prompt_logprobs", json!(2))).await;
    let prompt = id_list(&reply["prompt_token_ids"]);
    let rows = reply["prompt_logprobs"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]), (prompt.len(), &Value::Null));
    let own = &rows[4][prompt[4].to_string()];
    let raw = fake.language().raw(&prompt[..4]);
    assert!((own["logprob"].as_f64().unwrap() - raw[prompt[4] as usize].ln()).abs() < 1e-5);
    assert_eq!(own["rank"], raw.iter().filter(|&&p| p >= raw[prompt[4] as usize]).count());
    assert_eq!(own["decoded_token"], fake.codec().decode(&prompt[4..5], false));
}

#[tokio::test]
async fn stop_strings_end_a_chat_and_are_never_shown() {
    let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
    let fake = FakeVllm::start(FakeConfig { language, ..FakeConfig::default() }).await;
    for seed in 0..10 {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 40, "seed": seed,
            "allowed_token_ids": [1, 2, 3], "stop": ["abca", "cc"], "stream": true});
        let chunks = events_of(&fake, CHAT, &body).await;
        let deltas = chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap());
        let text: String = deltas.collect();
        body["stream"] = json!(false);
        let whole = ok(&fake, CHAT, body).await["choices"][0].clone();
        assert_eq!(whole["message"]["content"], text);
        assert_eq!(whole["stop_reason"], chunks.last().unwrap()["choices"][0]["stop_reason"]);
        assert!(!text.contains("abca") && !text.contains("cc"));
    }
}

#[tokio::test]
async fn an_error_of_the_engine_comes_before_the_role() {
    let fake = FakeVllm::start_default().await;
    let mut body = with("top_logprobs", json!(30));
    body["stream"] = json!(true);
    let chunks = events_of(&fake, CHAT, &body).await;
    assert_eq!((chunks.len(), &chunks[0]["error"]["param"]), (1, &json!("logprobs")));
}
