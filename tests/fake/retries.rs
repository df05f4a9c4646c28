//! Calls that fail for a passing reason are made again, and what goes on failing is the client's to know.

use http::StatusCode;
use serde_json::json;

use super::compare::same_answer;
use super::drafters::{often_right, told};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, Garbage, Runner};
use sidedraft::speculation::Proposal;

async fn by(strategy: &str) -> Rig {
    let config = FakeConfig { language: endless(), prefix_caching: false, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    Plan::new(config).strategy(strategy).drafters(drafters).start().await
}

/// The greedy answer of a rig after `break_it`, against the undisturbed one.
async fn still_right(rig: &Rig, break_it: impl Fn(&Rig)) {
    let direct = rig.complete_directly(&greedy(10)).await;
    break_it(rig);
    let through = rig.complete(&greedy(10)).await;
    assert_eq!(through["choices"], direct["choices"]);
}

#[tokio::test]
async fn a_call_that_fails_once_is_made_again() {
    for (strategy, path) in [("cached-suffix", GENERATE), ("cached-suffix", COMPLETIONS), ("fan-out", COMPLETIONS)] {
        let rig = by(strategy).await;
        for status in
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE]
        {
            still_right(&rig, |rig| rig.fake.fail_next(path, 1, status)).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_closes_without_a_reply_is_opened_again() {
    for path in [GENERATE, COMPLETIONS] {
        still_right(&by("cached-suffix").await, |rig| rig.fake.disconnect_next(path, 1)).await;
    }
}

#[tokio::test]
async fn an_error_that_stays_is_the_clients_with_status_and_body() {
    for path in [GENERATE, COMPLETIONS] {
        let rig = by("cached-suffix").await;
        rig.fake.fail_next(path, 100, StatusCode::INTERNAL_SERVER_ERROR);
        let (status, body) = rig.through(COMPLETIONS, &greedy(10)).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(error["error"]["message"], "a fault of the fake");
        assert!((rig.outcome("failed") - 1.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn a_throttled_client_is_told_when_to_come_back() {
    let rig = by("cached-suffix").await;
    rig.fake.throttle_next(COMPLETIONS, 100, 7);
    let reply = rig.sidecar.post(COMPLETIONS, &greedy(10)).await;
    assert_eq!(
        (reply.status(), &reply.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );
}

#[tokio::test]
async fn a_server_that_refuses_to_verify_still_decodes() {
    let rig = by("cached-suffix").await;
    still_right(&rig, |rig| rig.fake.fail_next(GENERATE, 1, StatusCode::FORBIDDEN)).await;
    assert!((rig.metric("sidedraft_verify_refused_total", "cached_suffix") - 1.0).abs() < 1e-9);
}

/// Nobody drafts, so that tokens come by streams.
#[tokio::test]
async fn a_stream_that_is_cut_is_resumed_where_it_broke_off() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let rig = Plan::new(config).drafters(told(|_| Ok(Proposal::default()))).start().await;
    let direct = rig.complete_directly(&greedy(40)).await;
    let prefill = rig.fake.hang_next(COMPLETIONS);
    let body = greedy(40);
    let (through, ()) = tokio::join!(rig.complete(&body), async {
        prefill.reached().await;
        rig.fake.cut_stream_after(COMPLETIONS, 3);
        prefill.release();
    });
    assert_eq!(through["choices"], direct["choices"]);
    let streams = rig.fake.requests_to(COMPLETIONS).iter().filter(|request| request.json()["stream"] == true).count();
    assert_eq!(streams, 3, "bursts of 9, 16 and 14 tokens, in events of 1 and then 4");
}

#[tokio::test]
async fn rows_that_cannot_be_printed_are_computed() {
    let config = FakeConfig {
        language: endless(),
        runner: Runner::V1,
        garbage: Garbage::Nan,
        block_size: 4,
        ..FakeConfig::default()
    };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
    let mut body = greedy(20);
    body["logprobs"] = json!(2);
    same_answer(&rig, &body).await;
    let skipping = rig.fake.requests_to(GENERATE);
    assert!(skipping.iter().any(|call| call.json()["sampling_params"]["skip_reading_prefix_cache"] == true));
}
