//! Chats that begin as the server's own stream, before their prompt was known: they are what they would have been, and
//! cost the server one request less.

use http::StatusCode;
use serde_json::{Value, json};

use super::drafters::often_right;
use super::exactness::{compare_after, expecting, ids, small};
use super::replies::{asking, same_forwarded, same_reply, same_whole, with};
use super::rig::{COMPLETIONS, Plan, Rig, endless};
use super::support::fake_vllm::{FakeConfig, Spoil};
use super::trainer::{
    CHAT, assert_undisturbed, choice, events, hung_in, request, send, send_named, streamed, tell, until,
};

const RENDER: &str = "/v1/chat/completions/render";

/// A sidecar that decodes, and has seen so.
async fn decoding(config: FakeConfig) -> Rig {
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--speculate never").start().await;
    tell(&rig, COMPLETIONS, &json!({"prompt": [1], "max_tokens": 1})).await;
    rig.fake.forget_requests();
    rig
}

async fn usual() -> Rig {
    decoding(FakeConfig { language: endless(), ..FakeConfig::default() }).await
}

fn chat(fields: &Value) -> Value {
    asking(CHAT, fields)
}

fn opened(rig: &Rig, outcome: &str) -> f64 {
    rig.metric("sidedraft_chats_opened_total", &format!("\"{outcome}\""))
}

/// How many requests the server had, beside those that it was asked for comparison.
fn calls(rig: &Rig) -> usize {
    rig.fake.requests().len()
}

#[tokio::test]
async fn a_chat_that_is_decoded_is_one_request() {
    for scale_out in [true, false] {
        let rig = decoding(FakeConfig { language: endless(), scale_out, ..FakeConfig::default() }).await;
        for body in [request(CHAT, 0.0, 12), streamed(CHAT, 1.0, 12)] {
            choice(send(&rig, CHAT, &body)).await;
        }
        assert_eq!((calls(&rig), rig.fake.requests_to(CHAT).len()), (2, 2), "{:?}", rig.fake.requests());
        assert_eq!(opened(&rig, "kept"), 2.0);
        assert_eq!(rig.metric("sidedraft_rollouts_running", ""), 0.0);
    }
}

#[tokio::test]
async fn its_reply_is_the_servers() {
    let rig = usual().await;
    let all = [
        json!({}),
        json!({"logprobs": true}),
        json!({"logprobs": true, "top_logprobs": 0, "return_tokens_as_token_ids": true}),
        json!({"return_token_ids": null, "stream_options": null}),
        json!({"max_tokens": null, "max_completion_tokens": 9}),
        json!({"min_tokens": 5, "stop_token_ids": [3, 4, 5, 6, 7, 8, 9]}),
        json!({"ignore_eos": true, "logit_bias": {"7": 3.5}, "priority": 0, "cache_salt": "s"}),
        json!({"temperature": 0, "repetition_penalty": 1.3}),
        json!({"add_generation_prompt": false, "chat_template_kwargs": {"a": 1}, "tool_choice": "none"}),
    ];
    for fields in &all {
        same_reply(&rig, CHAT, &chat(fields)).await;
    }
    assert_eq!(opened(&rig, "kept"), 2.0 * all.len() as f64);
    assert_eq!(rig.fake.requests_to(RENDER).len(), 0);
}

#[tokio::test]
async fn what_a_stream_does_not_tell_is_asked_for_beforehand() {
    let rig = usual().await;
    let all = [
        json!({"stop": ["zzz"]}),
        json!({"logprobs": true, "top_logprobs": 2}),
        json!({"prompt_logprobs": 1}),
        json!({"seed": 3}),
        json!({"max_tokens": null}),
        json!({"bad_words": [" a"]}),
    ];
    for fields in &all {
        same_whole(&rig, CHAT, &chat(fields)).await;
    }
    let two = with(chat(&json!({"temperature": 1.0})), &json!({"n": 2}));
    assert_eq!(rig.through(CHAT, &two).await.0, StatusCode::OK);
    assert_eq!(rig.fake.requests_to(RENDER).len(), all.len() + 1);
    assert_eq!(rig.metric("sidedraft_chats_opened_total", ""), 0.0);
}

#[tokio::test]
async fn the_samples_of_a_group_are_rendered_once() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--speculate never --suffix").start().await;
    rig.fake.forget_requests();
    let body = request(CHAT, 0.0, 12);
    let all = futures_util::future::join_all((0..8).map(|_| rig.through(CHAT, &body))).await;
    assert!(all.iter().all(|(status, _)| *status == StatusCode::OK));
    let ids: Vec<_> = all.iter().map(|(_, reply)| ids(&serde_json::from_slice(reply).unwrap())).collect();
    assert!(ids[0].concat().len() == 12 && ids.iter().all(|other| *other == ids[0]), "{ids:?}");
    assert_eq!(rig.fake.requests_to(RENDER).len(), 1);
    let from = |source| rig.metric("sidedraft_chats_rendered_total", source);
    assert_eq!((from("\"server\""), from("\"recent\"")), (1.0, 7.0));
    // One of another name is another request.
    same_whole(&rig, CHAT, &body).await;
    assert_eq!((from("\"server\""), from("\"recent\"")), (2.0, 7.0));
}

#[tokio::test]
async fn samples_follow_the_servers_law() {
    let rig = decoding(small()).await;
    let body = with(chat(&json!({"temperature": 1.0, "max_tokens": 3})), &json!({"logprobs": true}));
    let prompt = choice(send(&rig, CHAT, &body)).await.prompt;
    let mut first = compare_chats(&rig, &body, &prompt).await;
    if first < 1e-3 {
        first = compare_chats(&rig, &body, &prompt).await;
    }
    assert!(first > 1e-3, "{first}");
    assert_eq!(opened(&rig, "kept"), rig.fake.requests_to(CHAT).len() as f64);
}

/// The fit of a thousand chats to the server's law after `prompt`.
async fn compare_chats(rig: &Rig, body: &Value, prompt: &[u32]) -> f64 {
    let mut outputs = Vec::new();
    for _ in 0..1000 {
        let (status, reply) = rig.through(CHAT, body).await;
        assert_eq!(status, StatusCode::OK, "{reply:?}");
        outputs.extend(ids(&serde_json::from_slice(&reply).unwrap()));
    }
    compare_after(prompt, 3, rig, &outputs, &expecting(|_| {})).p_value
}

#[tokio::test]
async fn what_the_server_refuses_it_refuses_in_its_own_words() {
    let rig = usual().await;
    same_forwarded(&rig, CHAT, &chat(&json!({"model": "nobody"})), "refused").await;
    same_forwarded(&rig, CHAT, &chat(&json!({"max_tokens": 100_000})), "invalid").await;
    assert_eq!(rig.metric("sidedraft_chats_opened_total", ""), 0.0);
}

#[tokio::test]
async fn a_pause_before_the_first_token_lets_it_begin_anew() {
    for body in [request(CHAT, 0.0, 12), streamed(CHAT, 0.0, 12)] {
        let rig = usual().await;
        let (rollout, hang) = hung_in(&rig, &[CHAT], || send(&rig, CHAT, &body)).await;
        tell(&rig, "/pause?mode=keep", &json!({})).await;
        assert_eq!(opened(&rig, "left"), 1.0);
        hang.release();
        tell(&rig, "/resume", &json!({})).await;
        let whole = choice(rollout).await;
        assert_eq!((whole.ids.len(), whole.finish.as_deref()), (12, Some("length")));
        assert_undisturbed(&rig.fake, &whole);
        assert_eq!(opened(&rig, "kept"), 0.0);
    }
}

#[tokio::test]
async fn a_control_request_waits_for_no_more_than_the_next_token() {
    let rig = usual().await;
    let hold = rig.fake.hold_at_token(CHAT, 4);
    let rollout = send(&rig, CHAT, &request(CHAT, 0.0, 12));
    hold.reached().await;
    rig.sidecar.update_weights(2).await;
    hold.release();
    let whole = choice(rollout).await;
    let languages = ["default", "2"].map(|version| rig.fake.language_of(version));
    whole.assert_greedy(&[("default", &languages[0]), ("2", &languages[1])]);
    assert_eq!(whole.ids.len(), 12);
}

#[tokio::test]
async fn aborted_before_its_first_token_it_is_told_as_the_server_tells_it() {
    for body in [request(CHAT, 0.0, 12), streamed(CHAT, 0.0, 12)] {
        let rig = usual().await;
        let (rollout, hang) = hung_in(&rig, &[CHAT], || send_named(&rig, CHAT, &body, Some("mine"))).await;
        tell(&rig, "/abort_requests", &json!({"request_ids": ["chatcmpl-mine"]})).await;
        let through = events(rollout).await;
        hang.release();
        let hold = rig.fake.hold_at_token(CHAT, 0);
        let http = rig.sidecar.http.post(rig.fake.url() + CHAT).header("x-request-id", "mine").json(&body);
        let direct = tokio::spawn(async move {
            let reply = http.send().await.unwrap();
            (reply.status(), reply.text().await.unwrap())
        });
        hold.reached().await;
        assert_eq!(rig.direct("/abort_requests", &json!({"request_ids": ["chatcmpl-mine"]})).await.0, StatusCode::OK);
        let direct = events(direct).await;
        let last = |events: &[Value]| {
            let choice = &events.last().unwrap()["choices"][0];
            (choice["finish_reason"].clone(), choice["token_ids"].clone())
        };
        assert_eq!(last(&through), last(&direct));
        assert_eq!(rig.metric("sidedraft_aborted_rollouts_total", ""), 1.0);
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_leaves_nothing_behind() {
    let rig = usual().await;
    let (rollout, _hang) = hung_in(&rig, &[CHAT], || send(&rig, CHAT, &request(CHAT, 0.0, 12))).await;
    assert_eq!(rig.metric("sidedraft_rollouts_running", ""), 1.0);
    rollout.abort();
    until(|| rig.metric("sidedraft_rollouts_running", "") == 0.0).await;
    rig.fake.wait_until_idle().await;
}

#[tokio::test]
async fn a_server_whose_streams_tell_no_prompt_is_asked_for_it() {
    let rig = usual().await;
    rig.fake.spoil_next(CHAT, 1, Spoil::Text(|text| text.replace("prompt_token_ids", "prompt_ids")));
    for _ in 0..2 {
        let whole = choice(send(&rig, CHAT, &request(CHAT, 0.0, 12))).await;
        assert_undisturbed(&rig.fake, &whole);
        assert_eq!(whole.ids.len(), 12);
    }
    assert_eq!((opened(&rig, "untold"), rig.metric("sidedraft_chats_opened_total", "")), (1.0, 1.0));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_gone_on_with() {
    let rig = usual().await;
    rig.fake.cut_stream_after(CHAT, 4);
    let whole = choice(send(&rig, CHAT, &request(CHAT, 0.0, 12))).await;
    assert_eq!(whole.ids.len(), 12);
    assert_undisturbed(&rig.fake, &whole);
    assert_eq!(rig.fake.requests_to(COMPLETIONS).len(), 1);
}

#[tokio::test]
async fn where_there_is_no_room_the_server_is_not_asked() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let rig = Plan::new(config).flags("--speculate never --max-rollouts 1").start().await;
    tell(&rig, COMPLETIONS, &request(COMPLETIONS, 0.0, 1)).await;
    let (first, hang) = hung_in(&rig, &[COMPLETIONS], || send(&rig, COMPLETIONS, &request(COMPLETIONS, 0.0, 4))).await;
    assert_eq!(rig.through(CHAT, &request(CHAT, 0.0, 12)).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rig.fake.requests_to(CHAT).len(), 0);
    hang.release();
    choice(first).await;
}
