//! The benchmark's policies, and moving a running server from one to another.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::{Command, Stdio};

use futures_util::FutureExt;
use serde_json::json;

use crate::server::{model_dir, server};
use crate::support::harness::client;

/// The version of the weights that a server starts with.
const FIRST: &str = "default";

/// The folders of the policies, which are built where they are not there yet.
pub fn policies() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/target/target.py");
    let built = Command::new("python3").args([script, "policies"]).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the benchmark's policies cannot be built: see above");
    String::from_utf8(built.stdout).unwrap().trim().to_owned()
}

/// Swaps the weights of a running server as a trainer does, by requests to `url`.
pub async fn swap(http: &reqwest::Client, url: &str, folder: &str, version: &str) {
    let reload = json!({"method": "reload_weights", "kwargs": {"weights_path": folder}});
    for (path, body) in [
        ("/pause?mode=keep", json!({})),
        ("/collective_rpc", reload),
        ("/update_weight_version", json!({"new_version": version})),
        ("/reset_prefix_cache", json!({})),
        ("/resume", json!({})),
    ] {
        let reply = http.post(format!("{url}{path}")).json(&body).send().await.unwrap();
        let (status, text) = (reply.status(), reply.text().await.unwrap());
        assert!(status.is_success() && !text.contains("\"success\":false"), "{path}: {status} {text}");
    }
}

/// Runs `test`, and gives the server back the weights that it was started with, also where `test` fails: others use it, too.
pub async fn restoring<T>(test: impl Future<Output = T>) -> T {
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    swap(&client(), &server("float32"), &model_dir(), FIRST).await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
