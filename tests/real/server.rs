//! The servers and files that the test run was given.

use serde_json::{Value, json};

use crate::support::harness::{client, success};

/// The URL of the server that was started with this preset of `tests/target`.
pub fn server(preset: &str) -> String {
    given(&format!("SIDEDRAFT_TARGET_{}", preset.to_uppercase().replace('-', "_")))
}

/// The target's Hugging Face folder.
pub fn model_dir() -> String {
    given("SIDEDRAFT_TARGET_MODEL_DIR")
}

/// The quantised file that the target was made from, which serves as its draft.
pub fn gguf() -> String {
    given("SIDEDRAFT_TARGET_GGUF")
}

/// A Python with transformers and the openai client.
pub fn python() -> String {
    given("SIDEDRAFT_TARGET_PYTHON")
}

fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run these tests through `make test`, or tests/target/target.py with")
    })
}

/// The flags of a sidecar that drafts with the target's own quantised file.
pub fn neural_flags() -> Vec<String> {
    ["--draft-model", &gguf(), "--tokenizer", &model_dir()].map(str::to_owned).to_vec()
}

/// The flags of a sidecar that drafts by n-grams.
pub fn ngram_flags() -> Vec<String> {
    ["--drafter", "ngram", "--tokenizer", &model_dir()].map(str::to_owned).to_vec()
}

/// A folder with the next version of the policy.
pub fn next_version() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/target/perturb.py");
    let args = [script, "--model", &model_dir(), "--out", folder.path().to_str().unwrap()];
    assert!(std::process::Command::new(python()).args(args).status().unwrap().success());
    folder
}

/// The JSON of a successful completion of the server's own.
pub async fn complete_directly(server: &str, body: &Value) -> Value {
    success(client().post(format!("{server}/v1/completions")).json(body).send().await.unwrap()).await
}

/// The server's raw distribution after `context`, whole: log-probabilities by token id.
pub async fn full_distribution(server: &str, context: &[u32]) -> Vec<f64> {
    let body = json!({
        "prompt": context, "max_tokens": 1, "temperature": 1.0, "logprobs": -1, "return_tokens_as_token_ids": true
    });
    let reply = complete_directly(server, &body).await;
    let top = reply["choices"][0]["logprobs"]["top_logprobs"][0].as_object().unwrap();
    let mut logprobs = vec![f64::NEG_INFINITY; top.len()];
    for (name, logprob) in top {
        let id: usize = name.strip_prefix("token_id:").unwrap().parse().unwrap();
        logprobs[id] = logprob.as_f64().unwrap();
    }
    logprobs
}

/// The ids that a completion with `return_token_ids` brought.
pub fn ids(choice: &Value) -> Vec<u32> {
    choice["token_ids"].as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}
