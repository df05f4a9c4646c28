//! A server that was never meant for a sidecar, and that dies in the middle of everything.

use std::process::Command;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::own_server::{Server, free_port};
use crate::prompts::prompts;
use crate::server::{gguf, model_dir, neural_flags};
use crate::support::harness::Harness;

fn doctor(url: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidedraft"))
        .args(["doctor", "--upstream", url, "--draft-model", &gguf(), "--tokenizer", &model_dir()])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_is_reported_and_found_again() {
    let port = free_port();
    let start = move || Server::start("bfloat16-plain", port, None);
    let server = tokio::task::spawn_blocking(start).await.unwrap();

    let (works, report) = doctor(&server.url);
    assert!(works, "{report}");
    assert!(report.contains("--enable-scale-out"), "{report}");

    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Harness::start(&server.url, &flags).await;
    let request = |stream: bool| json!({ "prompt": prompts()[6], "max_tokens": 2000, "temperature": 1.0, "ignore_eos": true, "stream": stream });

    // Its speculation works, by the strategies that it has.
    let mut short = request(false);
    short["max_tokens"] = 12.into();
    sidecar.complete(&short).await;
    assert!(sidecar.metric("sidedraft_verify_calls_total", "") > 0.0);
    assert_eq!(sidecar.metric("sidedraft_verify_calls_total", "cached_suffix"), 0.0);

    let streaming = sidecar.post("/v1/completions", &request(true)).await;
    assert!(streaming.status().is_success());
    let mut events = streaming.bytes_stream();
    events.next().await.unwrap().unwrap();
    let (http, url) = (sidecar.http.clone(), format!("{}/v1/completions", sidecar.url));
    let body = request(false);
    let waiting = tokio::spawn(async move { http.post(url).json(&body).send().await.unwrap() });
    // The second request is under way once a rollout beside the first is running.
    while sidecar.metric("sidedraft_rollouts_running", "") < 2.0 {
        tokio::task::yield_now().await;
    }
    server.kill();

    let mut rest = String::new();
    while let Some(piece) = events.next().await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let last = rest.trim_end().strip_suffix("data: [DONE]").expect("the stream ends in order").trim_end();
    let error: Value = serde_json::from_str(last.rsplit_once("data: ").unwrap().1).unwrap();
    assert_eq!(error["error"]["code"], 502, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains(&server.url), "{error}");

    let refused = waiting.await.unwrap();
    assert_eq!(refused.status(), 502);
    let error: Value = refused.json().await.unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains(&server.url), "{error}");
    assert_eq!(sidecar.http.get(format!("{}/health", sidecar.url)).send().await.unwrap().status(), 503);

    drop(server);
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let health = sidecar.http.get(format!("{}/health", sidecar.url)).send().await.unwrap();
    assert_eq!(health.status(), 200);
    sidecar.sidecar.ready().await;
    let before = sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"");
    sidecar.complete(&short).await;
    assert_eq!(sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\""), before + 1.0);
    drop(server);
}
