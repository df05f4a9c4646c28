//! What the sidecar tells of itself, and to whom.

use http::StatusCode;
use serde_json::Value;

use super::rig::{COMPLETIONS, Plan, Rig, answer, greedy};
use super::support::fake_vllm::FakeVllm;

async fn get(rig: &Rig, path: &str) -> (StatusCode, String) {
    let (status, body) = answer(rig.sidecar.http.get(format!("{}{path}", rig.sidecar.url))).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn ready(rig: &Rig) -> (StatusCode, Value) {
    let (status, body) = get(rig, "/sidedraft/ready").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn it_lives_without_its_server_and_is_ready_once_it_was_probed() {
    let fake = FakeVllm::start_default().await;
    fake.kill().await;
    let rig = Plan::default().in_front_of(fake).await;
    assert_eq!(get(&rig, "/sidedraft/live").await.0, StatusCode::OK);
    let (status, body) = ready(&rig).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &503.into()));
    rig.fake.restart().await;
    rig.sidecar.sidecar.ready().await;
    assert_eq!(ready(&rig).await.1["speculates"], true);
}

#[tokio::test]
async fn its_own_routes_ask_the_server_nothing() {
    let rig = Rig::usual().await;
    let asked = |rig: &Rig| {
        rig.fake
            .requests()
            .into_iter()
            .filter(|request| !["/health", "/v1/models"].contains(&request.path.as_str()))
            .count()
    };
    rig.complete(&greedy(4)).await;
    rig.fake.forget_requests();
    for path in ["/sidedraft/live", "/sidedraft/ready", "/sidedraft/metrics"] {
        assert_eq!(get(&rig, path).await.0, StatusCode::OK);
    }
    let page = get(&rig, "/sidedraft/metrics").await.1;
    assert!(page.contains("sidedraft_requests_total{outcome=\"speculated\"") && !page.contains("vllm:num_requests"));
    assert_eq!(asked(&rig), 0);
    assert_eq!(get(&rig, "/sidedraft/other").await.0, StatusCode::NOT_FOUND);
    assert_eq!(asked(&rig), 1, "what is not its own is the server's");
}

#[tokio::test]
async fn it_says_why_it_does_not_speculate() {
    let rig = Plan::default().flags("--drafter off").start().await;
    let (status, body) = ready(&rig).await;
    assert_eq!((status, &body["speculates"], &body["reason"]), (StatusCode::OK, &false.into(), &"no_drafter".into()));
}

#[tokio::test]
async fn with_a_key_only_its_holder_reads_metrics_and_everybody_else_goes_on_as_before() {
    const KEY: &str = "open-sesame";
    let rig = Plan::default().flags(&format!("--api-key {KEY}")).start().await;
    for path in ["/metrics", "/sidedraft/metrics"] {
        let ask = |authorisation: Option<String>| {
            let request = rig.sidecar.http.get(format!("{}{path}", rig.sidecar.url));
            match authorisation {
                Some(value) => request.header("authorization", value),
                None => request,
            }
        };
        let wrong = ["open-sesam", "open-sesame2", "", "OPEN-SESAME"].map(|key| Some(format!("Bearer {key}")));
        for value in wrong.into_iter().chain([None, Some(KEY.to_owned()), Some(format!("Basic {KEY}"))]) {
            let reply = ask(value.clone()).send().await.unwrap();
            assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "{value:?}");
            assert_eq!(reply.headers()["www-authenticate"], "Bearer");
            let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
            assert_eq!((&body["error"]["code"], body.to_string().contains(KEY)), (&401.into(), false));
        }
        for value in [format!("Bearer {KEY}"), format!("bearer {KEY}")] {
            assert_eq!(answer(ask(Some(value))).await.0, StatusCode::OK);
        }
    }
    for path in ["/sidedraft/live", "/sidedraft/ready", "/health", "/v1/models"] {
        assert_eq!(get(&rig, path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(rig.through(COMPLETIONS, &greedy(4)).await.0, StatusCode::OK);
    let told = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).contains(KEY);
    assert!(!rig.fake.requests().iter().any(|request| request.headers.values().any(told)), "the server needs no key");
}

/// What a browser made of the page.
async fn rendered(url: &str, profile: &std::path::Path) -> String {
    let mut chromium = tokio::process::Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", profile.display())).arg(url);
    let output = chromium.output().await.expect("Debian's chromium");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_page_needs_nothing_from_outside() {
    let rig = Rig::usual().await;
    let url = format!("{}/sidedraft/", rig.sidecar.url);
    let reply = rig.sidecar.http.get(format!("{}/sidedraft", rig.sidecar.url)).send().await.unwrap();
    assert_eq!(reply.url().as_str(), url);
    assert!(reply.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let page = reply.text().await.unwrap();
    assert!(!page.contains("//cdn") && !page.contains("http://") && !page.contains("https://"));
}

#[tokio::test]
#[ignore = "needs Chromium: make page-check"]
async fn the_page_shows_the_figures() {
    let rig = Rig::usual().await;
    rig.complete(&greedy(20)).await;
    let profile = tempfile::tempdir().unwrap();
    let seen = rendered(&format!("{}/sidedraft/", rig.sidecar.url), profile.path()).await;
    let length = 1.0 + rig.accepted() / rig.metric("vllm:spec_decode_num_drafts_total", "");
    assert!(seen.contains("vLLM is ready"), "{seen}");
    assert!(seen.contains(&format!("<h2>Acceptance length</h2><p>{length:.2}</p>")), "{seen}");
    assert!(seen.contains("<h2>Speculated requests</h2><p>1</p>"), "{seen}");
}
