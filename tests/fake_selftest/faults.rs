use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use serde_json::json;

use super::support::fake_vllm::{FakeVllm, Spoil};
use super::{COMPLETIONS, ok, post};

#[tokio::test]
async fn the_next_requests_fail_and_the_one_after_does_not() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [1]});
    fake.fail_next("completions", 2, StatusCode::SERVICE_UNAVAILABLE);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(post(&fake, COMPLETIONS, &body).await.0.as_u16());
    }
    assert_eq!(statuses, [503, 503, 200]);
    assert_eq!(fake.aborted(), 0);
}

#[tokio::test]
async fn a_throttled_client_is_told_when_to_come_back() {
    let fake = FakeVllm::start_default().await;
    fake.throttle_next("", 1, 7);
    let reply = reqwest::get(fake.url() + "/health").await.unwrap();
    assert_eq!(
        (reply.status(), &reply.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );
}

#[tokio::test]
async fn a_connection_can_close_without_a_reply() {
    let fake = FakeVllm::start_default().await;
    fake.disconnect_next(COMPLETIONS, 1);
    let request = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&json!({"prompt": [1]}));
    assert!(request.send().await.is_err());
    assert_eq!((fake.requests().len(), fake.aborted()), (1, 0));
    ok(&fake, COMPLETIONS, json!({"prompt": [1]})).await;
}

#[tokio::test]
async fn a_stream_can_break_off_after_some_chunks() {
    let fake = FakeVllm::start_default().await;
    fake.cut_stream_after(COMPLETIONS, 3);
    let body = json!({"prompt": [1], "max_tokens": 10, "ignore_eos": true, "stream": true});
    let reply = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&body).send().await.unwrap();
    let parts: Vec<_> = reply.bytes_stream().collect().await;
    let text: String = parts.iter().flatten().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    assert!(parts.last().unwrap().is_err(), "the client can tell");
    assert_eq!(text.matches("data: ").count(), 3);
    fake.wait_until_idle().await;
    assert_eq!(fake.aborted(), 0);
}

#[tokio::test]
async fn a_hanging_request_goes_on_when_it_is_released() {
    let fake = FakeVllm::start_default().await;
    let hang = fake.hang_next(COMPLETIONS);
    let body = json!({"prompt": [1]});
    let (reply, ()) = tokio::join!(post(&fake, COMPLETIONS, &body), async {
        hang.reached().await;
        assert_eq!(fake.running(), 1);
        hang.release();
    });
    assert_eq!((reply.0, fake.running()), (StatusCode::OK, 0));
}

#[tokio::test(start_paused = true)]
async fn latency_is_on_tokios_clock() {
    let fake = FakeVllm::start_default().await;
    fake.set_latency(Duration::from_secs(30), Duration::from_secs(20));
    let before = tokio::time::Instant::now();
    ok(&fake, COMPLETIONS, json!({"prompt": [1], "max_tokens": 4, "ignore_eos": true})).await;
    assert!(before.elapsed() >= Duration::from_secs(30 + 4 * 20));
}

#[tokio::test]
async fn a_reply_can_be_spoilt() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [1], "max_tokens": 1});
    let ask = || reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&body).send();
    let whole = ask().await.unwrap().text().await.unwrap();
    fake.spoil_next(COMPLETIONS, 1, Spoil::Half);
    assert_eq!(ask().await.unwrap().text().await.unwrap().len(), whole.len() / 2);
    fake.spoil_next(COMPLETIONS, 1, Spoil::Cut);
    assert!(ask().await.unwrap().text().await.is_err());
    fake.spoil_next(COMPLETIONS, 1, Spoil::Json(|reply| reply["choices"] = json!([])));
    assert_eq!(ask().await.unwrap().json::<serde_json::Value>().await.unwrap()["choices"], json!([]));
    fake.spoil_next(COMPLETIONS, 1, Spoil::Text(|_| "other".to_owned()));
    assert_eq!(ask().await.unwrap().text().await.unwrap(), "other");
}
