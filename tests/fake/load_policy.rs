//! `tests/target/load_policy.py` swaps a running server's weights through the sidecar, and never leaves it paused.

use std::process::Output;

use http::StatusCode;
use serde_json::json;
use tokio::process::Command;

use super::exactness::{request, small};
use super::rig::{Plan, Rig, answer};
use super::support::nobody::Nobody;

async fn load(rig: &Rig, folder: &str, version: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/target/load_policy.py");
    let mut python = Command::new("python3");
    python.args([script, &rig.sidecar.url, folder, version]).kill_on_drop(true).output().await.unwrap()
}

async fn rig() -> Rig {
    Plan::new(small()).drafters(std::sync::Arc::new(Nobody)).flags("--replay").start().await
}

/// What the server has now: its weights, and what it calls them.
fn weights(rig: &Rig) -> (String, String) {
    (rig.fake.language().weights.clone(), rig.fake.weight_version())
}

#[tokio::test]
async fn the_server_has_the_new_weights_and_the_sidecar_knows_it() {
    let rig = rig().await;
    let sample = request(&json!({"temperature": 1.0}), &json!({"n": 3}));
    for (folder, version) in [("folder-1", "1"), ("folder-2", "2")] {
        let output = load(&rig, folder, version).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(weights(&rig), (folder.to_owned(), version.to_owned()));
        rig.complete(&sample).await;
    }
    assert_eq!(rig.metric("sidedraft_replays_total", "\"used\""), 3.0, "the rollouts of another version");
    let paths: Vec<String> = rig.fake.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.contains(&"/reset_prefix_cache".to_owned()), "{paths:?}");
}

#[tokio::test]
async fn a_step_that_fails_is_told_and_the_server_goes_on_under_its_old_weights() {
    let rig = rig().await;
    let before = weights(&rig);
    rig.fake.fail_next("/collective_rpc", 1, StatusCode::INTERNAL_SERVER_ERROR);
    let output = load(&rig, "folder-1", "1").await;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("load_policy.py: /collective_rpc: 500"), "{told}");
    assert_eq!(weights(&rig), before);
    let (_, paused) = answer(rig.sidecar.http.get(format!("{}/is_paused", rig.fake.url()))).await;
    assert_eq!(paused, r#"{"is_paused":false}"#);
}
