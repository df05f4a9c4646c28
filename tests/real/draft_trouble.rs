//! Whatever becomes of the draft model, answers stay right and a counter says so.

use futures_util::StreamExt;
use serde_json::{Value, json};
use sidedraft::setup::load_draft_model;

use crate::prompts::prompts;
use crate::server::{complete_directly, gguf, ids, model_dir, neural_flags, server};
use crate::support::harness::{Harness, settings};

fn request(prompt: &str) -> Value {
    json!({ "prompt": prompt, "max_tokens": 48, "temperature": 0.0, "return_token_ids": true, "ignore_eos": true })
}

async fn assert_right(sidecar: &Harness, prompt: &str) {
    let direct = complete_directly(&server("float32"), &request(prompt)).await;
    let proxied = sidecar.complete(&request(prompt)).await;
    assert_eq!(ids(&direct["choices"][0]), ids(&proxied["choices"][0]));
    assert_eq!(direct["choices"][0]["text"], proxied["choices"][0]["text"]);
}

#[tokio::test]
async fn a_draft_model_that_dies_in_the_middle_of_a_rollout_costs_no_answer() {
    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = server("float32");
    let model = load_draft_model(gguf().as_ref(), &settings(&server, &flags).target).await.unwrap();
    let sidecar = Harness::start_with(&server, &flags, |setup| setup.with_draft_model(model.clone())).await;
    sidecar.sidecar.ready().await;
    let prompt = &prompts()[6];
    let mut streamed = request(prompt);
    streamed["stream"] = true.into();
    let mut events = sidecar.post("/v1/completions", &streamed).await.bytes_stream();
    let mut text = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    model.stop();
    while let Some(piece) = events.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let chunks = text.split("\n\n").filter_map(|event| event.strip_prefix("data: {")).map(|rest| format!("{{{rest}"));
    let tokens: Vec<u32> =
        chunks.flat_map(|json| ids(&serde_json::from_str::<Value>(&json).unwrap()["choices"][0])).collect();
    let direct = complete_directly(&server, &request(prompt)).await;
    assert_eq!(tokens, ids(&direct["choices"][0]));
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(sidecar.metric("sidedraft_draft_failures_total", "reason=\"stopped\"") > 0.0);
    assert_right(&sidecar, &prompts()[2]).await;
}

#[tokio::test]
async fn a_draft_model_of_another_vocabulary_is_not_used() {
    // The same weights under a tokenizer in which two ids are exchanged.
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::os::unix::fs::symlink(format!("{}/{name}", model_dir()), folder.path().join(name)).unwrap();
    }
    let text = std::fs::read_to_string(format!("{}/tokenizer.json", model_dir())).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let names: Vec<String> =
        vocabulary.keys().filter(|name| vocabulary[*name].as_u64() > Some(1000)).take(2).cloned().collect();
    let (a, b) = (vocabulary[&names[0]].clone(), vocabulary[&names[1]].clone());
    vocabulary.insert(names[0].clone(), b);
    vocabulary.insert(names[1].clone(), a);
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let draft = folder.path().to_str().unwrap().to_owned();
    let sidecar = Harness::start(&server("float32"), &["--draft-model", &draft, "--tokenizer", &model_dir()]).await;
    assert!(sidecar.metric("sidedraft_draft_failures_total", "reason=\"vocabulary\"") > 0.0);
    assert_right(&sidecar, &prompts()[0]).await;
    assert_eq!(sidecar.metric("sidedraft_draft_duration_seconds_count", "neural"), 0.0);
}

#[tokio::test]
async fn a_draft_model_that_is_none_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF, or is it?").unwrap();
    let draft = broken.to_str().unwrap();
    let sidecar = Harness::start(&server("float32"), &["--draft-model", draft, "--tokenizer", &model_dir()]).await;
    assert!(sidecar.metric("sidedraft_draft_failures_total", "reason=\"load\"") > 0.0);
    assert_right(&sidecar, &prompts()[0]).await;
}
