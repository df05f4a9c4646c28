//! Keys are sent to the server and shown to nobody: not in the log, however much it says, and not among the metrics.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::replies::{ROUTES, asking, with};
use super::rig::COMPLETIONS;
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::settings;

const OWN: &str = "own-key-a81f";
const CLIENTS: &str = "client-key-77c2";

/// The command in front of `fake`, and its address.
async fn start(fake: &FakeVllm, key_by_flag: bool, format: &str) -> (Child, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidedraft"));
    command.args(["serve", "--upstream", &fake.url(), "--listen", "127.0.0.1:0", "--log", "trace"]);
    command.args(["--log-format", format, "--retries", "1", "--tokenizer", tokenizer.to_str().unwrap()]);
    if key_by_flag {
        command.args(["--upstream-api-key", OWN]);
    } else {
        command.env("SIDEDRAFT_UPSTREAM_API_KEY", OWN);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    (child, line["listening"].as_str().unwrap().to_owned(), folder)
}

/// Waits until requests are no longer forwarded for want of a probe.
async fn speculates(http: &reqwest::Client, url: &str) {
    loop {
        let body = asking(COMPLETIONS, &json!({}));
        http.post(format!("{url}{COMPLETIONS}")).bearer_auth(OWN).json(&body).send().await.unwrap();
        let page = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
        if page.lines().any(|line| line.starts_with("sidedraft_requests_total{outcome=\"speculated\"")) {
            return;
        }
    }
}

async fn nothing_is_told(key_by_flag: bool, format: &str) {
    let fake = FakeVllm::start(FakeConfig { api_key: Some(OWN.to_owned()), ..FakeConfig::default() }).await;
    let (mut child, url, _folder) = start(&fake, key_by_flag, format).await;
    let mut log = child.stderr.take().unwrap();
    let log = tokio::spawn(async move {
        let mut text = String::new();
        log.read_to_string(&mut text).await.unwrap();
        text
    });
    let http = reqwest::Client::new();
    speculates(&http, &url).await;
    for route in ROUTES {
        for key in [OWN, CLIENTS] {
            for more in [json!({}), json!({"stream": true}), json!({"nobody_knows": 1})] {
                let body = with(asking(route, &json!({"max_tokens": 8})), &more);
                http.post(format!("{url}{route}"))
                    .bearer_auth(key)
                    .json(&body)
                    .send()
                    .await
                    .unwrap()
                    .text()
                    .await
                    .unwrap();
            }
        }
        fake.disconnect_next(route, 2);
        let body = asking(route, &json!({}));
        http.post(format!("{url}{route}")).bearer_auth(CLIENTS).json(&body).send().await.unwrap().text().await.unwrap();
    }
    let pause = http.post(format!("{url}/pause")).bearer_auth(CLIENTS).send().await.unwrap();
    assert!(pause.status().is_success());
    http.post(format!("{url}/resume")).bearer_auth(CLIENTS).send().await.unwrap();
    let page = http.get(format!("{url}/metrics")).bearer_auth(CLIENTS).send().await.unwrap().text().await.unwrap();

    let signal = std::process::Command::new("kill").args(["-TERM", &child.id().unwrap().to_string()]).status();
    assert!(signal.unwrap().success() && child.wait().await.unwrap().success());
    let log = log.await.unwrap();
    assert!(log.contains("TRACE"), "it says all it can: {} bytes", log.len());
    for secret in [OWN, CLIENTS] {
        assert!(!page.contains(secret));
        let told: Vec<&str> = log.lines().filter(|line| line.contains(secret)).take(3).collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

#[tokio::test]
async fn a_key_given_as_a_flag_is_told_to_nobody() {
    nothing_is_told(true, "text").await;
}

#[tokio::test]
async fn a_key_given_in_the_environment_is_told_to_nobody() {
    nothing_is_told(false, "json").await;
}

#[test]
fn settings_that_are_printed_do_not_tell_keys() {
    let settings = settings("http://h", &["--upstream-api-key", OWN, "--api-key", CLIENTS]);
    for printed in [format!("{settings:?}"), format!("{:#?}", settings.target.upstream_options())] {
        assert!(printed.contains("api_key") && !printed.contains(OWN) && !printed.contains(CLIENTS), "{printed}");
    }
}
