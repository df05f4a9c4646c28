//! A client that goes away takes its request on the server with it.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;

use crate::prompts::prompts;
use crate::server::{neural_flags, server};
use crate::support::harness::{Harness, client};

/// A gauge or counter of the server's own page, summed over its labels.
async fn server_metric(name: &str) -> f64 {
    let page = client().get(format!("{}/metrics", server("float32"))).send().await.unwrap().text().await.unwrap();
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Asks the server until `done` says so; returns how long that took.
async fn until(name: &str, done: impl Fn(f64) -> bool) -> Duration {
    let start = Instant::now();
    while !done(server_metric(name).await) {
        assert!(start.elapsed() < Duration::from_secs(30), "{name} never got there");
        tokio::task::yield_now().await;
    }
    start.elapsed()
}

#[tokio::test]
async fn a_client_that_disconnects_aborts_its_request_within_a_second() {
    let flags = neural_flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // N-grams find nothing in this prompt, so the server is decoding when the client leaves.
    flags.extend(["--drafter", "ngram", "--ngram-min", "30", "--ngram-max", "30", "--decode-burst", "2000"]);
    let sidecar = Harness::start(&server("float32"), &flags).await;
    for stream in [true, false] {
        let request = json!({
            "prompt": prompts()[12], "max_tokens": 1500, "temperature": 0.0, "ignore_eos": true, "stream": stream
        });
        let http = sidecar.http.clone();
        let url = format!("{}/v1/completions", sidecar.url);
        let running = tokio::spawn(async move {
            let response = http.post(url).json(&request).send().await.unwrap();
            let mut body = response.bytes_stream();
            while body.next().await.is_some() {}
        });
        until("vllm:num_requests_running", |running| running >= 1.0).await;
        running.abort();
        let took = until("vllm:num_requests_running", |running| running == 0.0).await;
        assert!(took < Duration::from_secs(1), "the server went on for {took:?}");
        assert_eq!(sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\""), 0.0);
    }
}
