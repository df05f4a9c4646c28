//! A rollout that is best decoded is the server's own stream from its first token to its last.

use serde_json::{Value, json};

use super::compare::{comparable, events, same_answer};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless, greedy};
use super::support::fake_vllm::FakeConfig;

/// A sidecar that never speculates, in front of a server that says what its cache served.
async fn decoding() -> Rig {
    Plan::new(FakeConfig { language: endless(), ..FakeConfig::default() }).flags("--speculate never").start().await
}

/// A prompt that nobody has asked yet, of some blocks.
fn prompt(number: u32) -> Value {
    json!((0..40).map(|at| (at * 7 + number) % 60).collect::<Vec<u32>>())
}

#[tokio::test]
async fn one_request_brings_the_whole_rollout_and_its_accounting() {
    let rig = decoding().await;
    for (number, extra) in [json!({}), json!({"logprobs": 2}), json!({"stop_token_ids": [5, 9]})].iter().enumerate() {
        let mut body = greedy(30);
        body["prompt"] = prompt(number as u32);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rig.fake.forget_requests();
        let mut through = rig.complete(&body).await;
        assert_eq!(rig.fake.requests().len(), 1, "{extra}");
        rig.fake.reset_prefix_cache();
        let mut direct = rig.complete_directly(&body).await;
        for reply in [&mut through, &mut direct] {
            (reply["id"], reply["created"]) = (Value::Null, Value::Null);
        }
        assert_eq!(through, direct, "{extra}");
        assert_eq!(through["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "it tells what was cached");
    }
    assert_eq!(rig.metric("sidedraft_steps_total", "mode=\"decode\",reason=\"told\"") as u32, 3);
}

#[tokio::test]
async fn several_outputs_are_a_stream_each() {
    let rig = decoding().await;
    // One id is left to draw from: each output has one right answer.
    let mut body = greedy(12);
    body.as_object_mut().unwrap().extend(json!({"n": 3, "temperature": 1, "top_k": 1}).as_object().unwrap().clone());
    let direct = rig.complete_directly(&body).await;
    rig.fake.forget_requests();
    assert_eq!(comparable(rig.complete(&body).await), comparable(direct));
    let sent = rig.fake.requests_to(COMPLETIONS);
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|request| request.json()["stream"] == true && request.json()["max_tokens"] == 12));
}

#[tokio::test]
async fn streams_that_a_client_reads_come_token_by_token() {
    let rig = decoding().await;
    let body = greedy(9);
    same_answer(&rig, &body).await;
    let mut body = body;
    body["stream"] = json!(true);
    rig.fake.forget_requests();
    assert!(events(&rig, &body).await.len() >= 9);
    let sent = rig.fake.requests();
    assert!(sent.iter().all(|request| request.json().get("stream_interval").is_none()));
}

#[tokio::test]
async fn what_a_stream_cannot_tell_is_asked_before_it() {
    let rig = decoding().await;
    for extra in [json!({"prompt_logprobs": 1}), json!({"stop": ["zzz"]})] {
        let mut body = greedy(8);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let direct = rig.complete_directly(&body).await;
        rig.fake.forget_requests();
        assert_eq!(comparable(rig.complete(&body).await), comparable(direct), "{extra}");
        let sent: Vec<bool> = rig.fake.requests().iter().map(|request| request.json()["stream"] == true).collect();
        assert_eq!(sent, [false, true], "{extra}");
    }
}

#[tokio::test]
async fn the_generate_route_decodes_as_one_stream_too() {
    let rig = decoding().await;
    let body = json!({"token_ids": prompt(3), "sampling_params": {"temperature": 0, "max_tokens": 20, "logprobs": 1}});
    let (status, through) = rig.through(GENERATE, &body).await;
    assert_eq!(status, 200);
    assert_eq!(rig.fake.requests().len(), 1);
    let (_, direct) = rig.direct(GENERATE, &body).await;
    let choices = |reply: &[u8]| serde_json::from_slice::<Value>(reply).unwrap()["choices"].clone();
    assert_eq!(choices(&through), choices(&direct));
}
