//! Clients that people use.

use std::process::Command;

use crate::server::{neural_flags, python, server};
use crate::support::harness::Harness;

#[tokio::test]
async fn the_official_openai_client_completes_streams_and_gets_clean_errors() {
    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = server("float32");
    let sidecar = Harness::start(&server, &flags).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/openai_client.py");
    let url = sidecar.url.clone();
    let run = move || Command::new(python()).args([script, &url, &server]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"") >= 4.0, "{said}");
}
