//! Draft models whose vocabulary is longer or shorter than the server's: what both have is drafted, and no answer
//! changes.

use std::path::Path;

use serde_json::{Value, json};

use super::compare::same_answer;
use super::rig::{GENERATE, Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::Harness;
use super::tiny_llama;

/// Ids of the server.
const ALL: usize = 64;

/// Writes a draft model that has the server's first `tokens` tokens and as many embeddings as `padded`.
fn write_draft(folder: &Path, fake: &FakeVllm, tokens: usize, padded: usize) {
    tiny_llama::write(folder, fake.codec(), padded);
    change_tokenizer(folder, |tokenizer| {
        let known = |id: &Value| id.as_u64().unwrap() < tokens as u64;
        tokenizer["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| known(id));
        tokenizer["added_tokens"].as_array_mut().unwrap().retain(|token| known(&token["id"]));
    });
}

/// Changes the tokenizer in `folder`, and takes away what would add to it.
fn change_tokenizer(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut tokenizer);
    std::fs::write(path, tokenizer.to_string()).unwrap();
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
}

/// A sidecar that drafts with the model in `folder`, in front of a server that says no end.
async fn drafting_with(folder: &Path, write: impl FnOnce(&FakeVllm)) -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let fake = FakeVllm::start(config.clone()).await;
    write(&fake);
    let flags = format!("--drafter neural --draft-model {}", folder.display());
    Plan::new(config).flags(&flags).start().await
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

/// Drafts that the server was asked about and that are not in the answer, which it gave to `prompt`.
fn wrong_drafts(rig: &Rig, prompt: &[u64], answer: &[u64]) -> Vec<u64> {
    let right = [prompt, answer].concat();
    let of_request = |body: &[u8]| {
        let asked = ids(&serde_json::from_slice::<Value>(body).unwrap()["token_ids"]);
        let agreed = asked.iter().zip(&right).take_while(|(a, b)| a == b).count();
        asked[agreed..].to_vec()
    };
    rig.fake.requests_to(GENERATE).iter().flat_map(|request| of_request(&request.body)).collect()
}

#[tokio::test]
async fn a_draft_with_fewer_tokens_and_padding_for_the_rest_drafts_what_both_have() {
    let folder = tempfile::tempdir().unwrap();
    let rig = drafting_with(folder.path(), |fake| write_draft(folder.path(), fake, 40, ALL)).await;
    let answer = same_answer(&rig, &greedy(60)).await;
    let answer = ids(&answer["choices"][0]["token_ids"]);
    assert!(answer.iter().any(|id| *id >= 40), "nothing to tell the two vocabularies apart");
    let wrong = wrong_drafts(&rig, &[5, 6, 7], &answer);
    assert!(wrong.len() > 40 && wrong.iter().all(|id| *id < 40), "{wrong:?}");
    assert!(rig.metric("sidedraft_draft_failures_total", "").abs() < 1e-9);
}

#[tokio::test]
async fn a_draft_with_more_tokens_drafts_those_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let rig = drafting_with(folder.path(), |fake| {
        tiny_llama::write(folder.path(), fake.codec(), 80);
        change_tokenizer(folder.path(), |tokenizer| {
            for id in ALL..80 {
                tokenizer["model"]["vocab"][format!("more{id}")] = json!(id);
            }
        });
    });
    let rig = rig.await;
    let answer = same_answer(&rig, &greedy(60)).await;
    let wrong = wrong_drafts(&rig, &[5, 6, 7], &ids(&answer["choices"][0]["token_ids"]));
    assert!(wrong.len() > 40 && wrong.iter().all(|id| *id < ALL as u64), "{wrong:?}");
}

#[tokio::test]
async fn a_token_that_the_draft_has_no_embedding_for_costs_drafts_and_is_counted_once_a_rollout() {
    let folder = tempfile::tempdir().unwrap();
    let rig = drafting_with(folder.path(), |fake| write_draft(folder.path(), fake, 40, 40)).await;
    let unknown = || rig.metric("sidedraft_draft_failures_total", "drafter=\"neural\",reason=\"unknown_token\"");
    same_answer(&rig, &json!({"prompt": [5, 50, 7], "temperature": 0, "max_tokens": 20})).await;
    assert!((unknown() - 2.0).abs() < 1e-9, "of the answer in one piece and of the stream: {}", unknown());
    assert!(rig.metric("vllm:spec_decode_num_drafts_total", "").abs() < 1e-9);

    // One in the middle of an answer ends its drafts, not those of others.
    let answer = same_answer(&rig, &greedy(60)).await;
    assert!(ids(&answer["choices"][0]["token_ids"]).iter().any(|id| *id >= 40));
    assert!((unknown() - 4.0).abs() < 1e-9, "{}", unknown());
    assert!(rig.metric("vllm:spec_decode_num_drafts_total", "") > 0.0);
}

#[tokio::test]
async fn a_tokenizer_of_the_drafts_that_lacks_tokens_of_the_servers_is_not_taken_for_it() {
    let served = tempfile::tempdir().unwrap();
    let model_name = served.path().to_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let config = FakeConfig { language: endless(), model_name, ..FakeConfig::default() };
    let fake = FakeVllm::start(config).await;
    write_draft(folder.path(), &fake, 40, ALL);

    let sidecar = Harness::start(&fake.url(), &["--draft-model", path]).await;
    sidecar.complete(&greedy(20)).await;
    assert!((sidecar.metric("sidedraft_requests_total", "reason=\"tokenizer\"") - 1.0).abs() < 1e-9);

    fake.write_tokenizer(served.path());
    let sidecar = Harness::start(&fake.url(), &["--draft-model", path]).await;
    sidecar.complete(&greedy(20)).await;
    assert!((sidecar.metric("sidedraft_requests_total", "speculated") - 1.0).abs() < 1e-9);
    assert!((sidecar.metric("sidedraft_drafter_available", "neural") - 1.0).abs() < 1e-9);
}
