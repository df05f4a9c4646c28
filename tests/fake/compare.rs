//! Replies through the sidecar against the server's own.

use serde_json::{Value, json};

use super::rig::{COMPLETIONS, Rig};

/// A reply without what differs from one request to the next: its id, its time, and what the cache served.
pub fn comparable(mut reply: Value) -> Value {
    for field in ["id", "created"] {
        reply[field] = Value::Null;
    }
    if let Some(cached) = reply.pointer_mut("/usage/prompt_tokens_details/cached_tokens") {
        *cached = Value::Null;
    }
    reply
}

/// Asserts that a request which has one right answer gets it through the sidecar, in one piece and as a stream, and that
/// the sidecar speculated. Returns the answer.
pub async fn same_answer(rig: &Rig, body: &Value) -> Value {
    let speculated = rig.outcome("speculated");
    let direct = rig.complete_directly(body).await;
    let through = rig.complete(body).await;
    assert_eq!(comparable(through), comparable(direct.clone()), "{body}");
    same_stream(rig, body, &direct).await;
    assert!(rig.outcome("speculated") > speculated + 1.5, "it was forwarded: {body}");
    direct
}

/// Asserts that the stream of `body` says what `whole` does.
async fn same_stream(rig: &Rig, body: &Value, whole: &Value) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let chunks = events(rig, &body).await;
    for (index, expected) in whole["choices"].as_array().unwrap().iter().enumerate() {
        let of_choice: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index).collect();
        let text: String = of_choice.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(text, expected["text"], "{body}");
        for field in
            ["token_ids", "logprobs/tokens", "logprobs/token_logprobs", "logprobs/top_logprobs", "logprobs/text_offset"]
        {
            let pointer = format!("/{field}");
            let Some(Value::Array(expected)) = expected.pointer(&pointer) else { continue };
            let joined: Vec<Value> = of_choice
                .iter()
                .flat_map(|choice| choice.pointer(&pointer).unwrap().as_array().unwrap().clone())
                .collect();
            assert_eq!(&joined, expected, "{field} of {body}");
        }
        let (last, others) = of_choice.split_last().unwrap();
        assert_eq!(
            (&last["finish_reason"], &last["stop_reason"]),
            (&expected["finish_reason"], &expected["stop_reason"])
        );
        assert!(others.iter().all(|choice| choice["finish_reason"].is_null()));
        if body["return_token_ids"] == true {
            assert_eq!(of_choice[0]["prompt_token_ids"], expected["prompt_token_ids"]);
            assert!(of_choice[1..].iter().all(|choice| choice["prompt_token_ids"].is_null()));
        }
    }
}

/// The events of a stream through the sidecar, `[DONE]` left out after checking that it is the last.
pub async fn events(rig: &Rig, body: &Value) -> Vec<Value> {
    events_from(rig.sidecar.post(COMPLETIONS, body).await).await
}

/// The events of a stream.
pub async fn events_from(reply: reqwest::Response) -> Vec<Value> {
    assert!(reply.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let text = reply.text().await.unwrap();
    let mut events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}
