//! Generation that a trainer pauses: what becomes of rollouts under way, and of those that come meanwhile.

use std::pin::pin;

use futures_util::future::{Either, select};
use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::speculation::Proposal;

use super::drafters::told;
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless};
use super::support::fake_vllm::FakeConfig;
use super::trainer::{
    CHAT, Choice, ENDPOINTS, ask, assert_undisturbed, choice, events, events_of, generates, hung_in, position, request,
    sampling_path, send, streamed, tell, tell_directly, until,
};

async fn rig() -> Rig {
    Rig::drafting(FakeConfig { language: endless(), ..FakeConfig::default() }).await
}

fn is_paused(rig: &Rig) -> bool {
    rig.metric("sidedraft_paused", "") > 0.5
}

/// How many calls that generate the server has had.
fn calls(rig: &Rig) -> usize {
    rig.fake.requests().iter().filter(|request| generates(request)).count()
}

fn assert_whole(rig: &Rig, choice: &Choice, tokens: usize) {
    assert_eq!((choice.ids.len(), choice.finish.as_deref()), (tokens, Some("length")));
    assert_undisturbed(&rig.fake, choice);
}

#[tokio::test]
async fn abort_ends_rollouts_with_what_they_have() {
    for endpoint in ENDPOINTS {
        for body in [request(endpoint, 0.0, 12), streamed(endpoint, 0.0, 12)] {
            let rig = rig().await;
            let way = [sampling_path(endpoint), GENERATE, GENERATE];
            let (rollout, _hang) = hung_in(&rig, &way, || send(&rig, endpoint, &body)).await;
            tell(&rig, "/pause", &json!({})).await;
            let ended = choice(rollout).await;
            assert_eq!(ended.finish.as_deref(), Some("abort"), "{endpoint}");
            assert!((2..12).contains(&ended.ids.len()), "{endpoint}: {:?}", ended.ids);
            assert_undisturbed(&rig.fake, &ended);
            if endpoint == GENERATE {
                ended.assert_spans(&vec!["default"; ended.ids.len()]);
            }
            rig.fake.wait_until_idle().await;
            assert!(is_paused(&rig) && rig.fake.is_paused());
            assert!(rig.metric("sidedraft_rollouts_running", "") < 0.5);
            assert!((rig.metric("sidedraft_aborted_rollouts_total", "") - 1.0).abs() < 1e-9);
            assert!((rig.outcome("speculated") - 1.0).abs() < 1e-9);
        }
    }
}

#[tokio::test]
async fn abort_before_the_first_token_is_told_as_the_server_tells_it() {
    for endpoint in ENDPOINTS {
        for body in [request(endpoint, 0.0, 12), streamed(endpoint, 0.0, 12)] {
            let rig = rig().await;
            let (rollout, _hang) = hung_in(&rig, &[sampling_path(endpoint)], || send(&rig, endpoint, &body)).await;
            tell(&rig, "/pause", &json!({})).await;
            let through = events(rollout).await;
            tell(&rig, "/resume", &json!({})).await;

            let hold = rig.fake.hold_at_token(endpoint, 0);
            let (direct, ()) = tokio::join!(rig.direct(endpoint, &body), async {
                hold.reached().await;
                tell_directly(&rig, "/pause").await;
            });
            let direct = events_of(std::str::from_utf8(&direct.1).unwrap());
            let ends = |events: &[Value]| {
                let parts = events.iter().map(|event| &event["choices"][0]);
                parts.map(|part| (part["finish_reason"].clone(), part["token_ids"].clone())).collect::<Vec<_>>()
            };
            assert_eq!(ends(&through), ends(&direct), "{through:?}\n{direct:?}");
        }
    }
}

#[tokio::test]
async fn wait_lets_rollouts_finish_and_keeps_others_from_beginning() {
    for endpoint in ENDPOINTS {
        let rig = rig().await;
        let body = request(endpoint, 0.0, 12);
        let way = [sampling_path(endpoint), GENERATE];
        let (rollout, hang) = hung_in(&rig, &way, || send(&rig, endpoint, &body)).await;
        let pause = ask(&rig, "/pause?mode=wait", &json!({})).await;
        let later = send(&rig, endpoint, &body);
        until(|| rig.metric("sidedraft_rollouts_running", "") > 1.5).await;
        let before = calls(&rig);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert_eq!((calls(&rig), position(&rig.fake, "/pause")), (before, None));
        hang.release();
        assert_whole(&rig, &choice(rollout).await, 12);
        assert!(pause.await.unwrap().0.is_success());
        let paused_at = calls(&rig);
        assert_eq!(rig.fake.requests().pop().unwrap().path, "/pause", "the server was told when nothing ran");
        assert!(is_paused(&rig) && rig.fake.begun() == 0);

        tell(&rig, "/resume", &json!({})).await;
        assert_whole(&rig, &choice(later).await, 12);
        assert!(calls(&rig) > paused_at && !is_paused(&rig));
    }
}

#[tokio::test]
async fn keep_lets_rollouts_stand_still_between_two_steps() {
    for endpoint in ENDPOINTS {
        for (moment, steps) in [("first call", 1), ("verification", 2), ("decoding", 1)] {
            let config = FakeConfig { language: endless(), ..FakeConfig::default() };
            let rig = match moment {
                "decoding" => Plan::new(config).drafters(told(|_| Ok(Proposal::default()))).start().await,
                _ => Rig::drafting(config).await,
            };
            let body = streamed(endpoint, 0.0, 12);
            let way = &[sampling_path(endpoint), GENERATE][..steps];
            let (rollout, mut hang) = hung_in(&rig, way, || send(&rig, endpoint, &body)).await;
            if moment == "decoding" {
                let stream = rig.fake.hang_stream_after(sampling_path(endpoint), 2);
                hang.release();
                stream.reached().await;
                hang = stream;
            }
            let pause = ask(&rig, "/pause?mode=keep", &json!({})).await;
            if moment != "decoding" {
                assert_eq!(position(&rig.fake, "/pause"), None, "a step is under way");
                hang.release();
            }
            assert!(pause.await.unwrap().0.is_success());
            rig.fake.wait_until_idle().await;
            let stood = calls(&rig);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            assert!(is_paused(&rig) && calls(&rig) == stood && !rollout.is_finished(), "{endpoint} {moment}");
            tell(&rig, "/resume", &json!({})).await;
            assert_whole(&rig, &choice(rollout).await, 12);
            assert!(!is_paused(&rig));
        }
    }
}

#[tokio::test]
async fn a_pause_that_the_server_refuses_changes_nothing() {
    for (path, dev_mode) in [
        ("/pause", false),
        ("/pause?mode=wait", false),
        ("/pause?mode=keep", false),
        ("/sleep", false),
        ("/pause?mode=never", true),
    ] {
        let config = FakeConfig { language: endless(), dev_mode, ..FakeConfig::default() };
        let rig = Rig::drafting(config).await;
        let body = request(COMPLETIONS, 0.0, 12);
        let (rollout, hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], || send(&rig, COMPLETIONS, &body)).await;
        let pause = ask(&rig, path, &json!({})).await;
        hang.release();
        let (status, said) = pause.await.unwrap();
        let (expected, direct) = rig.direct(path, &json!({})).await;
        assert!(status.is_client_error() && status == expected && said.as_bytes() == direct, "{path}: {said}");
        assert_whole(&rig, &choice(rollout).await, 12);
        assert_whole(&rig, &choice(send(&rig, COMPLETIONS, &body)).await, 12);
        assert!(!is_paused(&rig), "{path}");
    }
}

#[tokio::test]
async fn a_server_that_resumes_without_a_word_is_noticed() {
    for (pause, resume) in [("/pause?mode=keep", "/resume"), ("/sleep?mode=keep", "/wake_up")] {
        let rig = rig().await;
        tell(&rig, pause, &json!({})).await;
        let rollout = send(&rig, COMPLETIONS, &request(COMPLETIONS, 0.0, 12));
        until(|| rig.metric("sidedraft_rollouts_running", "") > 0.5).await;
        assert!(is_paused(&rig) && calls(&rig) == 0);
        tell_directly(&rig, resume).await;
        assert_whole(&rig, &choice(rollout).await, 12);
        assert!(!is_paused(&rig));
    }
}

#[tokio::test]
async fn a_server_that_wakes_by_halves_is_still_asleep() {
    let rig = rig().await;
    let body = request(CHAT, 0.0, 12);
    let (rollout, hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], || send(&rig, CHAT, &body)).await;
    let sleep = ask(&rig, "/sleep?level=2&mode=keep", &json!({})).await;
    hang.release();
    assert!(sleep.await.unwrap().0.is_success());
    let stood = calls(&rig);
    tell(&rig, "/wake_up?tags=weights", &json!({})).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(is_paused(&rig) && calls(&rig) == stood, "its cache is not there yet");
    tell(&rig, "/collective_rpc", &json!({"method": "reload_weights"})).await;
    tell(&rig, "/wake_up?tags=kv_cache", &json!({})).await;
    assert_whole(&rig, &choice(rollout).await, 12);
    assert!(!is_paused(&rig));
    assert!(rig.metric("sidedraft_broken_turns_total", "") < 0.5);
}

#[tokio::test]
async fn a_client_that_gives_up_waiting_for_a_pause_leaves_nothing_held() {
    for mode in ["keep", "wait"] {
        let rig = rig().await;
        let body = request(COMPLETIONS, 0.0, 12);
        let (rollout, hang) = hung_in(&rig, &[COMPLETIONS, GENERATE], || send(&rig, COMPLETIONS, &body)).await;
        let pause = rig.sidecar.http.post(format!("{}/pause?mode={mode}", rig.sidecar.url)).send();
        let asked = until(|| rig.metric("sidedraft_control_requests_total", "\"pause\"") > 0.5);
        match select(pin!(pause), pin!(asked)).await {
            Either::Left(_) => panic!("a step is under way"),
            Either::Right(_) => {}
        }
        // Another rollout runs while the first still hangs.
        assert_whole(&rig, &choice(send(&rig, COMPLETIONS, &body)).await, 12);
        hang.release();
        assert_whole(&rig, &choice(rollout).await, 12);
        assert_eq!((position(&rig.fake, "/pause"), is_paused(&rig)), (None, false));
    }
}

#[tokio::test]
async fn a_pause_that_the_sidecar_passes_on_is_answered_by_the_server() {
    let rig = rig().await;
    for (path, said) in [
        ("/pause?mode=keep", json!({"status": "paused"})),
        ("/resume", json!({"status": "resumed"})),
        ("/sleep?level=2", json!({"status": "sleeping", "level": 2})),
        ("/wake_up", json!({"status": "awake", "tags": null})),
    ] {
        let (status, reply) = rig.through(path, &json!({})).await;
        assert_eq!((status, serde_json::from_slice::<Value>(&reply).unwrap()), (StatusCode::OK, said));
        assert_eq!(is_paused(&rig), path.starts_with("/pause") || path.starts_with("/sleep"));
    }
}
