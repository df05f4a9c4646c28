//! A client that goes away takes everything with it that was done for it; a sidecar that is stopped lets clients finish.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use serde_json::json;

use super::drafters::{often_right, told};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless, greedy};
use super::support::fake_vllm::FakeConfig;
use sidedraft::speculation::Proposal;

async fn nothing_is_left(rig: &Rig, aborts: usize) {
    rig.fake.wait_for_aborts(aborts).await;
    rig.fake.wait_until_idle().await;
    assert_eq!(rig.fake.running(), 0);
    assert!(rig.metric("sidedraft_rollouts_running", "").abs() < 1e-9);
    assert!((rig.outcome("cancelled") - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_client_that_leaves_during_any_call_aborts_it() {
    for path in [COMPLETIONS, GENERATE] {
        let rig = Rig::usual().await;
        let hang = rig.fake.hang_next(path);
        let body = greedy(12);
        match select(pin!(rig.through(COMPLETIONS, &body)), pin!(hang.reached())).await {
            Either::Left(_) => panic!("the call hangs"),
            Either::Right(_) => {}
        }
        nothing_is_left(&rig, 1).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_aborts_all_of_its_rollouts() {
    let rig = Rig::usual().await;
    let hang = rig.fake.hang_next_times(GENERATE, 4);
    let body = json!({"prompt": [5, 6], "n": 4, "max_tokens": 12, "ignore_eos": true, "temperature": 1});
    match select(pin!(rig.through(COMPLETIONS, &body)), pin!(hang.reached_by(4))).await {
        Either::Left(_) => panic!("the calls hang"),
        Either::Right(_) => {}
    }
    nothing_is_left(&rig, 4).await;
}

#[tokio::test]
async fn a_client_that_drops_a_stream_aborts_the_verification() {
    let rig = Rig::usual().await;
    let hang = rig.fake.hang_next(GENERATE);
    let mut body = greedy(12);
    body["stream"] = json!(true);
    let mut stream = rig.sidecar.post(COMPLETIONS, &body).await.bytes_stream();
    assert!(stream.next().await.unwrap().is_ok());
    hang.reached().await;
    drop(stream);
    nothing_is_left(&rig, 1).await;
}

#[tokio::test]
async fn a_client_that_drops_a_stream_aborts_plain_decoding() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let rig = Plan::new(config).drafters(told(|_| Ok(Proposal::default()))).start().await;
    let prefill = rig.fake.hang_next(COMPLETIONS);
    let mut body = greedy(12);
    body["stream"] = json!(true);
    let (reply, decoding) = tokio::join!(rig.sidecar.post(COMPLETIONS, &body), async {
        prefill.reached().await;
        let decoding = rig.fake.hang_stream_after(COMPLETIONS, 2);
        prefill.release();
        decoding
    });
    decoding.reached().await;
    drop(reply);
    nothing_is_left(&rig, 1).await;
}

#[tokio::test]
async fn a_client_of_a_forwarded_request_that_leaves_aborts_it() {
    let rig = Rig::usual().await;
    let hang = rig.fake.hang_next(COMPLETIONS);
    let body = json!({"prompt": [1], "echo": true});
    match select(pin!(rig.through(COMPLETIONS, &body)), pin!(hang.reached())).await {
        Either::Left(_) => panic!("the call hangs"),
        Either::Right(_) => {}
    }
    rig.fake.wait_for_aborts(1).await;
    rig.fake.wait_until_idle().await;
}

#[tokio::test]
async fn a_sidecar_that_is_stopped_lets_running_requests_finish() {
    for stream in [false, true] {
        let rig = Rig::usual().await;
        let direct = rig.complete_directly(&greedy(12)).await;
        let hang = rig.fake.hang_next(GENERATE);
        let mut body = greedy(12);
        body["stream"] = json!(stream);
        let (http, url) = (rig.sidecar.http.clone(), format!("{}{COMPLETIONS}", rig.sidecar.url));
        let request =
            tokio::spawn(async move { http.post(url).json(&body).send().await.unwrap().text().await.unwrap() });
        hang.reached().await;
        let mut stopped = tokio::spawn(rig.sidecar.stop());
        assert!(futures_util::poll!(&mut stopped).is_pending());
        hang.release();
        let text = request.await.unwrap();
        stopped.await.unwrap();
        if stream {
            assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("error"), "{text}");
        } else {
            let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(reply["choices"], direct["choices"]);
        }
    }
}

#[tokio::test]
async fn a_sidecar_that_is_stopped_aborts_what_is_left_at_the_deadline() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--drain-timeout 0").start().await;
    let hang = rig.fake.hang_next(GENERATE);
    let (http, url) = (rig.sidecar.http.clone(), format!("{}{COMPLETIONS}", rig.sidecar.url));
    let request = tokio::spawn(async move { http.post(url).json(&greedy(12)).send().await });
    hang.reached().await;
    rig.sidecar.stop().await;
    assert!(request.await.unwrap().is_err(), "the connection closed");
    rig.fake.wait_for_aborts(1).await;
}
