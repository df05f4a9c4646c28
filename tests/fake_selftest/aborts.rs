//! `/abort_requests`: by the ids that the engine knows requests under, or all at once.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::FakeVllm;
use super::{CHAT, COMPLETIONS, GENERATE, ok, tell};

/// Runs a request until it has `tokens` of output, aborts `abort`, and returns what that says and the reply.
async fn aborted(path: &str, body: Value, tokens: usize, abort: Value) -> (Value, Value) {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(path, tokens);
    let (reply, said) = tokio::join!(ok(&fake, path, body), async {
        hold.reached().await;
        let said = ok(&fake, "/abort_requests", abort).await;
        hold.release();
        said
    });
    (said, reply)
}

fn said(count: usize) -> Value {
    json!({"status": "aborted", "aborted": count})
}

#[tokio::test]
async fn a_request_ends_with_what_it_has() {
    let params = json!({"max_tokens": 9, "ignore_eos": true, "logprobs": 1});
    let generate = json!({"token_ids": [1, 2], "sampling_params": params, "request_id": "r"});
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 9, "ignore_eos": true,
        "return_token_ids": true, "request_id": "r"});
    for (path, body, id) in [(GENERATE, generate, "generate-tokens-r"), (CHAT, chat, "chatcmpl-r")] {
        let (told, reply) = aborted(path, body, 4, json!({"request_ids": [id]})).await;
        let choice = &reply["choices"][0];
        assert_eq!((told, &choice["finish_reason"], &choice["stop_reason"]), (said(1), &json!("abort"), &Value::Null));
        assert_eq!(choice["token_ids"].as_array().unwrap().len(), 4);
        assert_eq!(reply["usage"]["completion_tokens"], 4);
    }
}

#[tokio::test]
async fn a_completion_has_an_id_for_each_prompt() {
    let body = json!({"prompt": [[1, 2], [3]], "n": 2, "max_tokens": 6, "ignore_eos": true, "request_id": "r"});
    let (told, reply) = aborted(COMPLETIONS, body, 2, json!({"request_ids": ["cmpl-r-1", "cmpl-r"]})).await;
    let reasons: Vec<&Value> =
        reply["choices"].as_array().unwrap().iter().map(|choice| &choice["finish_reason"]).collect();
    assert_eq!(
        (told, json!(reasons)),
        (said(2), json!(["length", "length", "abort", "abort"])),
        "ids are counted as they came"
    );
}

#[tokio::test]
async fn no_ids_are_all_ids() {
    let body = json!({"prompt": [1, 2], "n": 3, "max_tokens": 6, "ignore_eos": true});
    let (told, reply) = aborted(COMPLETIONS, body, 2, json!({})).await;
    assert_eq!(told, said(4), "three sequences and what they belong to");
    assert!(reply["choices"].as_array().unwrap().iter().all(|choice| choice["finish_reason"] == "abort"));
}

#[tokio::test]
async fn the_text_that_a_stop_string_held_back_comes_with_the_end() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(CHAT, 5);
    let body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 9, "allowed_token_ids": [1, 2],
        "stop": ["ccccc"], "stream": true});
    let (chunks, _) = tokio::join!(events_of(&fake, CHAT, &body), async {
        hold.reached().await;
        tell(&fake, "/abort_requests").await
    });
    let last = &chunks.last().unwrap()["choices"][0];
    assert_eq!((&last["finish_reason"], last["delta"]["content"].as_str().unwrap().len()), (&json!("abort"), 4));
}

#[tokio::test]
async fn a_stream_that_is_aborted_before_its_first_token_never_says_so() {
    let fake = FakeVllm::start_default().await;
    for (path, fields, chunks) in [
        (COMPLETIONS, json!({"prompt": [1]}), 0),
        (CHAT, json!({"messages": [{"role": "user", "content": "a"}]}), 1),
        (GENERATE, json!({"token_ids": [1], "sampling_params": {}}), 1),
    ] {
        let hold = fake.hold_at_token(path, 0);
        let mut body = fields;
        body["stream"] = json!(true);
        let (events, _) = tokio::join!(events_of(&fake, path, &body), async {
            hold.reached().await;
            tell(&fake, "/abort_requests").await
        });
        assert_eq!(events.len(), chunks, "{path}: {events:?}");
    }
}
