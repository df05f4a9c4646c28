//! `/abort_requests`: rollouts end by the ids that their requests have on the server, or all at once.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::draft::{DraftRequest, Drafter, ProposalFuture};
use sidedraft::rollout::DrafterFactory;
use tokio::sync::watch;

use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, answer, endless};
use super::support::fake_vllm::FakeConfig;
use super::trainer::{
    CHAT, Choice, ENDPOINTS, assert_undisturbed, choice, events, hung_in, request, send, send_named, streamed, tell,
    until,
};

const ABORT: &str = "/abort_requests";

async fn rig() -> Rig {
    Rig::drafting(FakeConfig { language: endless(), ..FakeConfig::default() }).await
}

/// The id on the server of a request that is called `base`.
fn id_of(endpoint: &str, base: &str) -> String {
    match endpoint {
        COMPLETIONS => format!("cmpl-{base}-0"),
        CHAT => format!("chatcmpl-{base}"),
        _ => format!("generate-tokens-{base}"),
    }
}

fn assert_aborted(rig: &Rig, choice: &Choice) {
    assert_eq!(choice.finish.as_deref(), Some("abort"));
    assert!((1..12).contains(&choice.ids.len()), "{:?}", choice.ids);
    assert_undisturbed(&rig.fake, choice);
}

fn assert_whole(rig: &Rig, choice: &Choice) {
    assert_eq!((choice.ids.len(), choice.finish.as_deref()), (12, Some("length")));
    assert_undisturbed(&rig.fake, choice);
}

#[tokio::test]
async fn the_rollout_that_is_named_ends_and_others_go_on() {
    for endpoint in ENDPOINTS {
        for in_header in [true, false] {
            let rig = rig().await;
            let hang = rig.fake.hang_next_times(GENERATE, 2);
            let hung = if endpoint == GENERATE { 0 } else { 2 };
            let start = |base: &str| {
                let mut body = if base == "mine" { streamed(endpoint, 0.0, 12) } else { request(endpoint, 0.0, 12) };
                if in_header {
                    return send_named(&rig, endpoint, &body, Some(base));
                }
                body["request_id"] = json!(base);
                send(&rig, endpoint, &body)
            };
            let (mine, other) = (start("mine"), start("other"));
            hang.reached_by(2).await;
            let hang = if hung == 0 {
                // Those were the first calls of this route; the verifications come now.
                let next = rig.fake.hang_next_times(GENERATE, 2);
                hang.release();
                next.reached_by(2).await;
                next
            } else {
                hang
            };
            let ids = [id_of(endpoint, "mine"), "unknown".to_owned()];
            let said = tell(&rig, ABORT, &json!({"request_ids": ids})).await;
            assert_eq!(serde_json::from_slice::<Value>(&said).unwrap(), json!({"status": "aborted", "aborted": 2}));
            assert_aborted(&rig, &choice(mine).await);
            rig.fake.wait_for_aborts(1).await;
            hang.release();
            assert_whole(&rig, &choice(other).await);
            assert!((rig.metric("sidedraft_aborted_rollouts_total", "") - 1.0).abs() < 1e-9);
        }
    }
}

#[tokio::test]
async fn each_prompt_of_a_completion_has_an_id_and_all_its_choices_share_it() {
    let rig = rig().await;
    let hang = rig.fake.hang_next_times(GENERATE, 4);
    let mut body = request(COMPLETIONS, 1.0, 12);
    body["prompt"] = json!([[5, 6], [7]]);
    body["n"] = json!(2);
    let pending = send_named(&rig, COMPLETIONS, &body, Some("r"));
    hang.reached_by(4).await;
    tell(&rig, ABORT, &json!({"request_ids": ["cmpl-r-1", "cmpl-r"]})).await;
    rig.fake.wait_for_aborts(2).await;
    hang.release();
    let events = events(pending).await;
    let finishes: Vec<Option<String>> = (0..4).map(|index| Choice::of(&events, index).finish).collect();
    let finishes: Vec<&str> = finishes.iter().flatten().map(String::as_str).collect();
    assert_eq!(finishes, ["length", "length", "abort", "abort"]);
}

/// Has no idea until it may.
struct Waiting(watch::Receiver<bool>);

impl Drafter for Waiting {
    fn name(&self) -> &'static str {
        "waiting"
    }

    fn propose<'a>(&'a mut self, _: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(async move {
            let _ = self.0.wait_for(|may| *may).await;
            Ok(sidedraft::speculation::Proposal::default())
        })
    }
}

struct Waiters(watch::Receiver<bool>);

impl DrafterFactory for Waiters {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        vec![Box::new(Waiting(self.0.clone()))]
    }
}

#[tokio::test]
async fn all_rollouts_end_where_none_is_named_and_are_counted() {
    for body in [json!({}), json!({"request_ids": []}), json!({"request_ids": null})] {
        // Between two calls, so that the server itself has nothing to abort but what was forwarded.
        let (_may, wait) = watch::channel(false);
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let rig = Plan::new(config).drafters(Arc::new(Waiters(wait))).start().await;
        let rollouts = ENDPOINTS.map(|endpoint| send(&rig, endpoint, &request(endpoint, 0.0, 12)));
        until(|| rig.metric("sidedraft_decoded_tokens_total", "") > 2.5).await;
        let hold = rig.fake.hold_at_token(COMPLETIONS, 2);
        let forwarded = send(&rig, COMPLETIONS, &json!({"prompt": [1], "echo": true}));
        hold.reached().await;
        let said: Value = serde_json::from_slice(&tell(&rig, ABORT, &body).await).unwrap();
        assert_eq!(said, json!({"status": "aborted", "aborted": 4}), "three here and one there");
        for rollout in rollouts {
            assert_aborted(&rig, &choice(rollout).await);
        }
        assert_eq!(events(forwarded).await[0]["choices"][0]["finish_reason"], "abort");
        assert!((rig.metric("sidedraft_aborted_rollouts_total", "") - 3.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn rollouts_in_the_middle_of_a_call_end_too_where_none_is_named() {
    let rig = rig().await;
    let body = request(COMPLETIONS, 0.0, 12);
    let (rollout, _hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], || send(&rig, COMPLETIONS, &body)).await;
    let said: Value = serde_json::from_slice(&tell(&rig, ABORT, &json!({})).await).unwrap();
    assert!(said["aborted"].as_u64().unwrap() >= 1);
    assert_aborted(&rig, &choice(rollout).await);
    rig.fake.wait_until_idle().await;
}

/// Posts `body` as it is.
async fn post(rig: &Rig, url: &str, body: &'static str) -> (StatusCode, bytes::Bytes) {
    let request = rig.sidecar.http.post(format!("{url}{ABORT}")).header("content-type", "application/json");
    answer(request.header("x-mark", "1").body(body)).await
}

#[tokio::test]
async fn a_request_passes_on_byte_for_byte() {
    let rig = rig().await;
    for body in [r#"{ "request_ids" : ["a", "b"] , "more":1.50 }"#, "{}", "[1 ,2]", "", "no json"] {
        let (status, said) = post(&rig, &rig.sidecar.url, body).await;
        let through = rig.fake.requests().pop().unwrap();
        let direct = post(&rig, &rig.fake.url(), body).await;
        let received = rig.fake.requests().pop().unwrap();
        assert_eq!(through.body, body.as_bytes());
        assert_eq!((&through.path, &through.headers["x-mark"]), (&received.path, &received.headers["x-mark"]));
        assert_eq!(status, direct.0, "{body}");
        let json = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(json(&said), json(&direct.1), "{body}");
    }
}

#[tokio::test]
async fn a_request_that_the_server_refuses_aborts_nothing() {
    for (body, dev_mode) in [("[]", true), ("", true), ("null", true), ("no json", true), ("{}", false)] {
        let config = FakeConfig { language: endless(), dev_mode, ..FakeConfig::default() };
        let rig = Rig::drafting(config).await;
        let asked = request(COMPLETIONS, 0.0, 12);
        let (rollout, hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], || send(&rig, COMPLETIONS, &asked)).await;
        let (status, _) = post(&rig, &rig.sidecar.url, body).await;
        assert!(status.is_client_error(), "{body}");
        hang.release();
        assert_whole(&rig, &choice(rollout).await);
    }
}

/// vLLM takes a single id for a list of one, and ids that are no texts for ids that nobody has.
#[tokio::test]
async fn ids_that_are_not_a_list_of_texts_do_not_mean_all() {
    for (ids, ends) in [(json!("cmpl-r-0"), true), (json!([1, 2]), false), (json!([1, "cmpl-r-0"]), true)] {
        let rig = rig().await;
        let asked = request(COMPLETIONS, 0.0, 12);
        let start = || send_named(&rig, COMPLETIONS, &asked, Some("r"));
        let (rollout, hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], start).await;
        tell(&rig, ABORT, &json!({"request_ids": ids})).await;
        hang.release();
        let choice = choice(rollout).await;
        if ends { assert_aborted(&rig, &choice) } else { assert_whole(&rig, &choice) }
    }
}
