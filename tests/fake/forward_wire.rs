//! Forwarding on the wire: paths, headers, keys.

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::drafters::often_right;
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, answer, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::Harness;

/// Sends a request as it is written and returns the reply as it comes.
pub async fn raw(url: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn paths_and_queries_arrive_byte_for_byte() {
    let rig = Rig::usual().await;
    for target in ["/v1/we%2Fird%20path?a=1&a=2&b=%C3%A9", "//double//slash", "/x?", "/v1/completions/", "/a?b?c=/../d"]
    {
        for method in ["GET", "DELETE", "PATCH", "OPTIONS"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n");
            let reply = raw(&rig.sidecar.url, &request).await;
            assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
            let received = rig.fake.requests().pop().unwrap();
            let query = received.query.map(|query| format!("?{query}")).unwrap_or_default();
            assert_eq!((received.method.as_str(), received.path + &query), (method, target.to_owned()));
        }
    }
    assert!(rig.forwarded("route") > 19.0);
}

#[tokio::test]
async fn headers_of_one_hop_stay_behind_and_the_others_arrive() {
    let rig = Rig::usual().await;
    let request = "GET /v1/thing HTTP/1.1\r\nHost: proxy\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
                   Keep-Alive: 5\r\nProxy-Authorization: p\r\nX-End: 1\r\nX-End: 2\r\nAuthorization: Bearer k\r\n\r\n";
    raw(&rig.sidecar.url, request).await;
    let headers = rig.fake.requests().pop().unwrap().headers;
    for name in ["x-hop", "te", "keep-alive", "proxy-authorization", "connection"] {
        assert!(!headers.contains_key(name), "{name} of {headers:?}");
    }
    assert_eq!(headers.get_all("x-end").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(headers["authorization"], "Bearer k");
    assert_eq!(headers["host"], rig.fake.address().to_string());
}

#[tokio::test]
async fn headers_of_one_hop_stay_behind_on_the_way_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let reply = "HTTP/1.1 418 I'm a teapot\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
                         X-End: 1\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    let sidecar = Harness::start_with(&upstream, &[], |setup| setup).await;
    let reply = sidecar.http.get(format!("{}/tea", sidecar.url)).send().await.unwrap();
    assert_eq!((reply.status(), &reply.headers()["x-end"]), (StatusCode::IM_A_TEAPOT, &"1".parse().unwrap()));
    assert!(!reply.headers().contains_key("x-secret") && !reply.headers().contains_key("keep-alive"));
    assert_eq!(reply.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn other_routes_are_the_servers() {
    let rig = Rig::usual().await;
    let body = json!({"prompt": "hi", "add_special_tokens": false});
    assert_eq!(rig.through("/tokenize", &body).await, rig.direct("/tokenize", &body).await);
    let models = answer(rig.sidecar.http.get(format!("{}/version", rig.sidecar.url))).await;
    assert_eq!(models, answer(rig.sidecar.http.get(rig.fake.url() + "/version")).await);
}

fn with_key() -> FakeConfig {
    FakeConfig { api_key: Some("sesame".to_owned()), ..FakeConfig::default() }
}

#[tokio::test]
async fn a_clients_key_is_passed_on_with_every_call_made_for_it() {
    let config = with_key();
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).flags("--upstream-api-key sesame").drafters(drafters).start().await;
    let url = format!("{}{COMPLETIONS}", rig.sidecar.url);
    let request = rig.sidecar.http.post(&url).json(&greedy(12)).header("x-tenant", "t");
    assert_eq!(answer(request.bearer_auth("sesame")).await.0, StatusCode::OK);
    assert!(rig.verified("cached_suffix") > 0.0);
    let calls = rig.fake.requests();
    assert!(calls.iter().any(|call| call.path == GENERATE));
    for call in calls.iter().filter(|call| !["/health", "/v1/models"].contains(&call.path.as_str())) {
        assert_eq!(call.headers["authorization"], "Bearer sesame", "{}", call.path);
        assert_eq!(call.headers["x-tenant"], "t");
    }
}

#[tokio::test]
async fn the_sidecars_own_key_is_never_used_for_a_client() {
    let rig = Plan::new(with_key()).flags("--upstream-api-key sesame").start().await;
    let through = rig.through(COMPLETIONS, &greedy(4)).await;
    assert_eq!(through, rig.direct(COMPLETIONS, &greedy(4)).await);
    assert_eq!(through.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_key_of_its_own_the_sidecar_forwards() {
    let fake = FakeVllm::start(with_key()).await;
    let rig = Plan::default().in_front_of(fake).await;
    let url = format!("{}{COMPLETIONS}", rig.sidecar.url);
    let reply = answer(rig.sidecar.http.post(url).json(&greedy(4)).bearer_auth("sesame")).await;
    assert_eq!(reply.0, StatusCode::OK);
    assert!((rig.forwarded("not_probed") - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn large_bodies_stream_through_both_ways() {
    let rig = Rig::usual().await;
    let blob = "x".repeat(3 << 20);
    let reply = answer(rig.sidecar.http.post(format!("{}/upload", rig.sidecar.url)).body(blob.clone())).await;
    assert_eq!(reply.0, StatusCode::NOT_FOUND);
    assert_eq!(rig.fake.requests_to("/upload").pop().unwrap().body.len(), blob.len());
}
