//! Clients that people use.

use std::process::Command;

use crate::server::{model_dir, neural_flags, python, server};
use crate::support::harness::Harness;

async fn sidecar(server: &str) -> Harness {
    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Harness::start(server, &flags).await
}

/// Runs a script of `tests/clients`; what it said, once it has said that all is well.
async fn run(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python());
    command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"))).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{said}");
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn the_official_openai_client_completes_chats_streams_and_gets_clean_errors() {
    let server = server("float32");
    let sidecar = sidecar(&server).await;
    let said = run("openai_client.py", &[&sidecar.url, &server]).await;
    assert!(sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"") >= 4.0, "{said}");
}

#[tokio::test]
async fn a_grpo_step_finds_every_logprob_to_be_the_policys_own() {
    let sidecar = sidecar(&server("float32")).await;
    let said = run("grpo.py", &["--base-url", &sidecar.url, "--model-dir", &model_dir()]).await;
    assert!(sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"") >= 1.0, "{said}");
}
