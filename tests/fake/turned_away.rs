//! What is more than a client may take is turned away, in the shape of the server's own errors, and nothing else is.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::forward_wire::raw;
use super::replies::{CHAT, ROUTES, asking};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, answer, endless};
use super::support::fake_vllm::FakeConfig;
use super::support::harness::client;
use super::trainer::until;

async fn rig(flags: &str) -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    Plan::new(config).flags(flags).start().await
}

/// Status, headers and error of a reply.
async fn refused(request: reqwest::RequestBuilder) -> (StatusCode, HeaderMap, Value) {
    let reply = request.send().await.unwrap();
    let (status, headers) = (reply.status(), reply.headers().clone());
    let mut body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], status.as_u16());
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
    (status, headers, body["error"].take())
}

fn turned_away(rig: &Rig, reason: &str) -> f64 {
    rig.metric("sidedraft_requests_total", &format!("outcome=\"refused\",reason=\"{reason}\""))
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_431_and_does_not_reach_the_server() {
    let rig = rig("--max-header-bytes 1000").await;
    for path in [COMPLETIONS, "/v1/embeddings", "/pause"] {
        let request = rig.sidecar.http.post(format!("{}{path}", rig.sidecar.url)).header("x-long", "a".repeat(1000));
        let (status, _, error) = refused(request).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert!(error["message"].as_str().unwrap().contains("1000 bytes"), "{error}");
    }
    let query = "q".repeat(1000);
    assert_eq!(refused(rig.sidecar.http.get(format!("{}/?{query}", rig.sidecar.url))).await.0.as_u16(), 431);
    assert!(rig.fake.requests().is_empty());
    assert!((turned_away(&rig, "head_too_long") - 4.0).abs() < 1e-9);
    let request = rig.sidecar.http.post(format!("{}{COMPLETIONS}", rig.sidecar.url)).header("x-long", "a".repeat(500));
    assert_eq!(answer(request.json(&asking(COMPLETIONS, &json!({})))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_long_is_413_before_any_of_it_is_read() {
    let rig = rig("--max-body-bytes 300").await;
    for path in [COMPLETIONS, CHAT, "/v1/embeddings", "/update_weights", "/abort_requests"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 301\r\n\r\n");
        let reply = raw(&rig.sidecar.url, &head).await;
        assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
        let error: Value = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(error["error"]["code"], 413);
    }
    assert!(rig.fake.requests().is_empty());
    let mut body = asking(COMPLETIONS, &json!({})).to_string();
    body.extend(std::iter::repeat_n(' ', 300 - body.len()));
    let request = rig.sidecar.http.post(format!("{}{COMPLETIONS}", rig.sidecar.url)).body(body);
    assert_eq!(answer(request.header("content-type", "application/json")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_turns_out_too_long_is_413_and_what_was_sent_on_is_broken_off() {
    let rig = rig("--max-body-bytes 300 --max-parsed-bytes 100").await;
    for path in [COMPLETIONS, "/v1/embeddings", "/update_weights", "/abort_requests"] {
        let pieces = (0..4).map(|_| Ok::<_, std::io::Error>("a".repeat(90)));
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let request = rig.sidecar.http.post(format!("{}{path}", rig.sidecar.url)).body(body);
        let (status, _, error) = refused(request.header("content-type", "application/json")).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(error["message"].as_str().unwrap().contains("300 bytes"), "{error}");
    }
    assert!(rig.fake.requests().is_empty(), "no request came to its end");
    rig.fake.wait_until_idle().await;
    assert_eq!(answer(rig.sidecar.http.get(format!("{}/v1/models", rig.sidecar.url))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn rollouts_beyond_the_limit_are_429_with_a_time_to_try_again() {
    for route in ROUTES {
        let rig = rig("--max-rollouts 2").await;
        let body = |n: usize| {
            let mut body = asking(route, &json!({"max_tokens": 6}));
            let fields = if route == GENERATE { &mut body["sampling_params"] } else { &mut body };
            (fields["n"], fields["temperature"]) = (json!(n), json!(1));
            body
        };
        // Nothing is drafted after so short a context: the first call is a decode stream.
        let hang = rig.fake.hang_next(if route == GENERATE { GENERATE } else { COMPLETIONS });
        let two = body(2);
        let (first, ()) = tokio::join!(rig.through(route, &two), async {
            hang.reached().await;
            let request = rig.sidecar.http.post(format!("{}{route}", rig.sidecar.url)).json(&body(1));
            let (status, headers, error) = refused(request).await;
            assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
            assert_eq!(error["type"], "RateLimitError");
            hang.release();
        });
        assert_eq!(first.0, StatusCode::OK, "{first:?}");
        assert!((turned_away(&rig, "rollouts") - 1.0).abs() < 1e-9);
        assert_eq!(rig.through(route, &body(2)).await.0, StatusCode::OK);
        assert!((rig.outcome("speculated") - 2.0).abs() < 1e-9);
        // It would never have room here.
        assert_eq!(rig.through(route, &body(3)).await.0, StatusCode::OK);
        assert!((rig.forwarded("too_many_rollouts") - 1.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn a_rollout_whose_client_has_gone_makes_room() {
    let rig = rig("--max-rollouts 1").await;
    let hang = rig.fake.hang_next(COMPLETIONS);
    let body = asking(COMPLETIONS, &json!({"max_tokens": 6}));
    tokio::select! {
        reply = rig.through(COMPLETIONS, &body) => panic!("{reply:?}"),
        () = hang.reached() => {}
    }
    until(|| rig.metric("sidedraft_rollouts_running", "") < 0.5).await;
    hang.release();
    assert_eq!(rig.through(COMPLETIONS, &body).await.0, StatusCode::OK);
}

#[tokio::test]
async fn over_a_connection_too_many_only_the_sidecars_health_is_told() {
    let rig = rig("--max-connections 2").await;
    let models = format!("{}/v1/models", rig.sidecar.url);
    let clients = [client(), client()];
    for client in &clients {
        assert_eq!(answer(client.get(&models)).await.0, StatusCode::OK);
    }
    let third = client();
    let (status, headers, _) = refused(third.get(&models)).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    let body = asking(COMPLETIONS, &json!({}));
    assert_eq!(refused(third.post(rig.sidecar.url.clone() + COMPLETIONS).json(&body)).await.0.as_u16(), 503);
    for path in ["/sidedraft/live", "/sidedraft/ready", "/health", "/metrics"] {
        assert_eq!(answer(third.get(format!("{}{path}", rig.sidecar.url))).await.0, StatusCode::OK, "{path}");
    }
    assert!((turned_away(&rig, "connections") - 2.0).abs() < 1e-9);
    drop(clients);
    until(|| rig.metric("sidedraft_connections", "") < 2.0).await;
    assert_eq!(answer(third.get(&models)).await.0, StatusCode::OK);
}
