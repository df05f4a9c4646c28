//! What the server refuses, it refuses in its own words.

use serde_json::{Value, json};

use super::compare::events;
use super::replies::{ROUTES, asking, same_refusal, with};
use super::rig::{COMPLETIONS, Rig, answer};

async fn assert_same_refusal(rig: &Rig, body: &Value) {
    let (through, direct) = (rig.through(COMPLETIONS, body).await, rig.direct(COMPLETIONS, body).await);
    assert_eq!(through, direct, "{body}");
    assert!(through.0.is_client_error(), "{body}");
}

#[tokio::test]
async fn values_out_of_range() {
    let rig = Rig::usual().await;
    for (field, value) in [
        ("temperature", json!(3.0)),
        ("temperature", json!(-1)),
        ("temperature", json!("hot")),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-5)),
        ("min_p", json!(2)),
        ("n", json!(0)),
        ("n", json!(-1)),
        ("n", json!(null)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-3)),
        ("max_tokens", json!(99_999)),
        ("logprobs", json!(21)),
        ("logprobs", json!(-2)),
        ("stop", json!("")),
        ("stop", json!(["a", ""])),
        ("stop_token_ids", json!([9999])),
        ("stop_token_ids", json!([-1])),
        ("cache_salt", json!("")),
        ("model", json!("another")),
        ("prompt", json!(null)),
        ("prompt", json!("")),
        ("prompt", json!([])),
        ("prompt", json!([[]])),
        ("prompt", json!([9999])),
        ("prompt", json!(vec![1; 4097])),
        ("prompt", json!(vec![1; 4096])),
        ("presence_penalty", json!(3)),
        ("repetition_penalty", json!(0)),
        ("stream_options", json!({"include_usage": true})),
    ] {
        let mut body = json!({"prompt": [5, 6], "max_tokens": 4});
        body[field] = value;
        assert_same_refusal(&rig, &body).await;
    }
    assert_same_refusal(&rig, &json!({"prompt": [1], "n": 2, "temperature": 0})).await;
    assert_same_refusal(&rig, &json!({})).await;
    assert_same_refusal(&rig, &json!([1])).await;
}

#[tokio::test]
async fn values_out_of_range_on_every_route() {
    let rig = Rig::usual().await;
    for route in ROUTES {
        for fields in [
            json!({"temperature": -1}),
            json!({"temperature": "hot"}),
            json!({"top_p": 0}),
            json!({"top_k": -5}),
            json!({"min_p": 2}),
            json!({"n": 0}),
            json!({"n": 2, "temperature": 0}),
            json!({"max_tokens": 0}),
            json!({"prompt_logprobs": 21}),
            json!({"stop": ""}),
            json!({"stop_token_ids": [9999]}),
            json!({"presence_penalty": 3}),
        ] {
            same_refusal(&rig, route, &asking(route, &fields), 400).await;
        }
        same_refusal(&rig, route, &with(asking(route, &json!({})), &json!({"model": "another"})), 404).await;
    }
}

#[tokio::test]
async fn what_the_engine_refuses_is_an_event_on_every_route() {
    let rig = Rig::usual().await;
    for route in ROUTES {
        let body = with(asking(route, &json!({"stop_token_ids": [9999]})), &json!({"stream": true}));
        let (status, through) = rig.through(route, &body).await;
        assert_eq!((status, through), rig.direct(route, &body).await);
        assert_eq!(status, 200, "{route}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let rig = Rig::usual().await;
    for body in ["", "{", "null", "{\"prompt\": [1],}", "\u{0}"] {
        let ask = |url: String| {
            let request = rig.sidecar.http.post(url).header("content-type", "application/json").body(body);
            answer(request)
        };
        let through = ask(format!("{}{COMPLETIONS}", rig.sidecar.url)).await;
        assert_eq!(through, ask(rig.fake.url() + COMPLETIONS).await, "{body:?}");
    }
}

#[tokio::test]
async fn what_the_engine_refuses_is_an_event_of_a_stream() {
    let rig = Rig::usual().await;
    for (field, value) in [("logprobs", json!(30)), ("stop_token_ids", json!([9999]))] {
        let mut body = json!({"prompt": [1], "stream": true});
        body[field] = value;
        let events = events(&rig, &body).await;
        assert_eq!((events.len(), &events[0]["error"]["param"]), (1, &json!(field)));
    }
}
