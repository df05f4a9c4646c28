//! The server goes away and comes back.

use http::StatusCode;
use serde_json::{Value, json};

use super::compare::same_answer;
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, greedy};
use super::support::fake_vllm::FakeVllm;

fn is_bad_gateway(rig: &Rig, body: &[u8]) {
    let error: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["type"]), (&json!(502), &json!("BadGatewayError")));
    assert!(error["error"]["message"].as_str().unwrap().contains(&rig.fake.url()), "{error}");
}

#[tokio::test]
async fn without_its_server_every_request_gets_a_502_that_names_it() {
    let rig = Rig::usual().await;
    rig.fake.kill().await;
    for (path, body) in [(COMPLETIONS, greedy(4)), ("/v1/chat/completions", json!({})), (COMPLETIONS, json!({}))] {
        let (status, body) = rig.through(path, &body).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        is_bad_gateway(&rig, &body);
    }
}

#[tokio::test]
async fn a_rollout_whose_server_dies_ends_in_a_502_and_the_next_one_speculates_again() {
    let rig = Rig::usual().await;
    let hang = rig.fake.hang_next(GENERATE);
    let body = greedy(12);
    let ((status, reply), ()) = tokio::join!(rig.through(COMPLETIONS, &body), async {
        hang.reached().await;
        rig.fake.kill().await;
    });
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    is_bad_gateway(&rig, &reply);
    rig.fake.restart().await;
    same_answer(&rig, &greedy(12)).await;
    assert!(rig.verified("cached_suffix") > 0.0);
}

#[tokio::test]
async fn a_stream_whose_server_dies_ends_in_an_error_event() {
    let rig = Rig::usual().await;
    let hang = rig.fake.hang_next(GENERATE);
    let mut body = greedy(12);
    body["stream"] = json!(true);
    let (text, ()) = tokio::join!(async { rig.sidecar.post(COMPLETIONS, &body).await.text().await.unwrap() }, async {
        hang.reached().await;
        rig.fake.kill().await;
    });
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 3, "a token, the error, the end: {text}");
    is_bad_gateway(&rig, events[1].strip_prefix("data: ").unwrap().as_bytes());
    assert_eq!(events[2], "data: [DONE]");
    assert!(rig.metric("sidedraft_rollouts_running", "").abs() < 1e-9);
    rig.fake.restart().await;
    same_answer(&rig, &greedy(12)).await;
}

#[tokio::test]
async fn a_sidecar_that_is_there_first_finds_its_server_when_it_comes_up() {
    let fake = FakeVllm::start_default().await;
    fake.kill().await;
    let rig = Plan::default().in_front_of(fake).await;
    assert_eq!(rig.through(COMPLETIONS, &greedy(4)).await.0, StatusCode::BAD_GATEWAY);
    assert!(rig.metric("sidedraft_upstream_ready", "").abs() < 1e-9);
    rig.fake.restart().await;
    rig.sidecar.sidecar.ready().await;
    rig.complete(&greedy(4)).await;
    assert!((rig.outcome("speculated") - 1.0).abs() < 1e-9);
}

/// Everything that this thread logs, at any level.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_key_gets_into_logs_or_errors() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let rig = Plan::default().flags("--upstream-api-key own-secret").start().await;
    let url = format!("{}{COMPLETIONS}", rig.sidecar.url);
    let ask = || super::rig::answer(rig.sidecar.http.post(&url).json(&greedy(6)).bearer_auth("client-secret"));
    assert_eq!(ask().await.0, StatusCode::OK);
    rig.fake.fail_next(COMPLETIONS, 3, StatusCode::INTERNAL_SERVER_ERROR);
    let mut said = ask().await.1.to_vec();
    rig.fake.kill().await;
    said.extend(ask().await.1);
    said.extend(rig.through("/other", &json!({})).await.1);
    said.extend(log.0.lock().unwrap().iter());
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("trying again"), "the log is there");
    for line in said.lines() {
        assert!(!line.contains("-secret"), "{line}");
    }
}
