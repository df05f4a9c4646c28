//! Replies through the sidecar against the server's own on every route: byte for byte where they come in one piece, and
//! put together again where they come in chunks.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::{Value, json};

use super::compare::events_from;
use super::rig::{COMPLETIONS, GENERATE, Rig};

pub const CHAT: &str = "/v1/chat/completions";
pub const ROUTES: [&str; 3] = [COMPLETIONS, CHAT, GENERATE];

/// The fields of `more` put in the place of those of `body`.
pub fn with(mut body: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

/// A greedy request to `route` for 14 tokens, with `fields` among its sampling parameters.
pub fn asking(route: &str, fields: &Value) -> Value {
    let sampling = with(json!({"temperature": 0, "max_tokens": 14}), fields);
    match route {
        COMPLETIONS => with(json!({"prompt": [5, 6, 7], "return_token_ids": true}), &sampling),
        CHAT => {
            let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me"}]);
            with(json!({"messages": messages, "return_token_ids": true}), &sampling)
        }
        _ => json!({"token_ids": [5, 6, 7], "sampling_params": sampling}),
    }
}

/// Ids of the first choice.
pub fn ids_of(reply: &Value) -> Vec<u32> {
    serde_json::from_value(reply["choices"][0]["token_ids"].clone()).unwrap()
}

/// Asserts that a request which has one right answer gets it through the sidecar, in one piece and as a stream, and that
/// the sidecar speculated. Returns the answer.
pub async fn same_reply(rig: &Rig, route: &str, body: &Value) -> Value {
    let answer = same_whole(rig, route, body).await;
    same_stream(rig, route, body).await;
    answer
}

/// Asserts that both replies in one piece have the same bytes, but for their time.
pub async fn same_whole(rig: &Rig, route: &str, body: &Value) -> Value {
    let body = with(body.clone(), &json!({"request_id": "mine"}));
    let speculated = rig.outcome("speculated");
    rig.fake.reset_prefix_cache();
    let (status, direct) = rig.direct(route, &body).await;
    rig.fake.reset_prefix_cache();
    let through = rig.through(route, &body).await;
    assert_eq!(status, StatusCode::OK, "{direct:?}");
    assert_eq!((through.0, timeless(&through.1)), (status, timeless(&direct)), "{route} {body}");
    assert!(rig.outcome("speculated") > speculated + 0.5, "it was forwarded: {route} {body}");
    serde_json::from_slice(&direct).unwrap()
}

/// Asserts that both streams say the same of each choice, in chunks of the same shapes.
pub async fn same_stream(rig: &Rig, route: &str, body: &Value) {
    let body = with(body.clone(), &json!({"request_id": "mine", "stream": true}));
    let speculated = rig.outcome("speculated");
    rig.fake.reset_prefix_cache();
    let direct = streamed(rig, rig.fake.url() + route, &body).await;
    rig.fake.reset_prefix_cache();
    let through = streamed(rig, format!("{}{route}", rig.sidecar.url), &body).await;
    assert_eq!(joined(&through), joined(&direct), "{route} {body}");
    let usage = |chunks: &[Value]| chunks.iter().filter(|chunk| chunk["choices"] == json!([])).cloned().collect();
    let (ours, theirs): (Vec<Value>, Vec<Value>) = (usage(&through), usage(&direct));
    assert_eq!(ours, theirs, "{route} {body}");
    for end in [<[Value]>::first, <[Value]>::last] {
        assert_eq!(shape(end(&through).unwrap()), shape(end(&direct).unwrap()), "{route} {body}");
    }
    let shapes = |chunks: &[Value]| chunks.iter().map(|chunk| shape(chunk).to_string()).collect::<BTreeSet<_>>();
    let unknown: Vec<_> = shapes(&through).difference(&shapes(&direct)).cloned().collect();
    assert!(unknown.is_empty(), "{route} {body}: the server has no chunk of {unknown:?}");
    assert!(rig.outcome("speculated") > speculated + 0.5, "it was forwarded: {route} {body}");
}

/// Asserts that a request is the server's to answer, in its own bytes, and is counted by this reason. Returns the answer.
pub async fn same_forwarded(rig: &Rig, route: &str, body: &Value, reason: &str) -> (StatusCode, Value) {
    let body = with(body.clone(), &json!({"request_id": "mine"}));
    let before = rig.forwarded(reason);
    rig.fake.reset_prefix_cache();
    let direct = rig.direct(route, &body).await;
    rig.fake.reset_prefix_cache();
    let through = rig.through(route, &body).await;
    assert_eq!(through, direct, "{route} {body}");
    assert!((rig.forwarded(reason) - before - 1.0).abs() < 1e-9, "not forwarded for {reason}: {route} {body}");
    (direct.0, serde_json::from_slice(&direct.1).unwrap_or_default())
}

/// Asserts that the server refuses a request with `status`, and that its words come back.
pub async fn same_refusal(rig: &Rig, route: &str, body: &Value, status: u16) {
    let forwarded = rig.outcome("forwarded");
    let (direct, through) = (rig.direct(route, body).await, rig.through(route, body).await);
    assert_eq!(through, direct, "{route} {body}");
    assert_eq!(through.0.as_u16(), status, "{route} {body}");
    assert!((rig.outcome("forwarded") - forwarded - 1.0).abs() < 1e-9, "{route} {body}");
}

/// The chunks of a stream without their times.
pub async fn streamed(rig: &Rig, url: String, body: &Value) -> Vec<Value> {
    let mut chunks = events_from(rig.sidecar.http.post(url).json(body).send().await.unwrap()).await;
    for chunk in chunks.iter_mut().filter_map(Value::as_object_mut) {
        chunk.remove("created");
    }
    chunks
}

/// A reply's bytes without its time.
pub fn timeless(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap();
    let Some((before, after)) = text.split_once("\"created\":") else { return text.to_owned() };
    before.to_owned() + after.trim_start_matches(|character: char| character.is_ascii_digit())
}

/// What the chunks of a stream come to: of the reply, and of each choice.
fn joined(chunks: &[Value]) -> (Value, BTreeMap<u64, Value>) {
    let (mut reply, mut choices) = (Value::Null, BTreeMap::new());
    for chunk in chunks {
        for choice in chunk["choices"].as_array().unwrap() {
            join(choices.entry(choice["index"].as_u64().unwrap()).or_default(), "", choice);
        }
        let mut rest = chunk.clone();
        rest.as_object_mut().unwrap().retain(|key, _| key != "choices" && key != "usage");
        join(&mut reply, "", &rest);
    }
    (reply, choices)
}

/// Puts the value of `key` in the next chunk to what came before.
fn join(into: &mut Value, key: &str, next: &Value) {
    match (into, next) {
        (Value::Object(into), Value::Object(next)) => {
            for (key, value) in next {
                join(into.entry(key.clone()).or_insert(Value::Null), key, value);
            }
        }
        (Value::Array(into), Value::Array(next)) => into.extend(next.iter().cloned()),
        (Value::String(into), Value::String(next)) if key == "content" || key == "text" => into.push_str(next),
        (_, Value::Null) => {}
        (into, next) => *into = next.clone(),
    }
}

/// The fields of a chunk, with what kind of value each has. Of a list of choices only the first is looked at, of other
/// lists none.
fn shape(chunk: &Value) -> Value {
    match chunk {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::Array(list) if key == "choices" => (key.clone(), list.first().map_or(json!("none"), shape)),
                _ => (key.clone(), shape(value)),
            })
            .collect(),
        Value::Null => Value::Null,
        Value::Array(_) => json!("list"),
        Value::String(_) => json!("text"),
        Value::Number(_) | Value::Bool(_) => json!("number"),
    }
}
