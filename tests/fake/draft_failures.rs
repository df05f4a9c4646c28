//! Drafters that fail, or are not there, cost speed and no answer.

use serde_json::json;
use sidedraft::draft::DraftError;
use sidedraft::model::{DraftModel, ModelOptions, ModelSource};
use sidedraft::rollout::DrafterFactory;
use std::sync::Arc;

use super::compare::same_answer;
use super::drafters::told;
use super::exactness::{expecting, fit, small};
use super::rig::{Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm, TextCodec};
use super::support::harness::Harness;
use super::tiny_llama;

fn failures(sidecar: &Harness, drafter: &str, reason: &str) -> f64 {
    let labels = format!("drafter=\"{drafter}\",reason=\"{reason}\"");
    sidecar.metric("sidedraft_draft_failures_total", &labels)
}

async fn rig(drafters: Arc<dyn DrafterFactory>) -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    Plan::new(config).drafters(drafters).start().await
}

/// A sidecar with the draft model in `folder`.
async fn with_model(fake: &FakeVllm, folder: &tempfile::TempDir, flags: &[&str]) -> Harness {
    let path = folder.path().to_str().unwrap();
    Harness::start(&fake.url(), &[&["--draft-model", path], flags].concat()).await
}

#[tokio::test]
async fn a_drafter_that_fails_now_and_then_is_asked_again() {
    let rig = rig(told(|_| Err(DraftError::Failed("no".to_owned())))).await;
    same_answer(&rig, &greedy(40)).await;
    assert!(failures(&rig.sidecar, "told", "failed") > 2.0);
}

#[tokio::test]
async fn a_drafter_that_is_gone_is_not_asked_again() {
    let rig = rig(told(|_| Err(DraftError::Stopped("gone".to_owned())))).await;
    same_answer(&rig, &greedy(40)).await;
    assert!((failures(&rig.sidecar, "told", "stopped") - 2.0).abs() < 1e-9, "once a rollout");
}

#[tokio::test]
async fn a_drafter_that_panics_is_not_asked_again() {
    let rig = rig(told(|_| panic!("a bug in a drafter"))).await;
    same_answer(&rig, &greedy(40)).await;
    assert!((failures(&rig.sidecar, "told", "stopped") - 2.0).abs() < 1e-9, "once a rollout");
    assert!(rig.metric("sidedraft_rollouts_running", "").abs() < 1e-9);
}

#[tokio::test]
async fn a_draft_model_that_knows_nothing_is_exact() {
    let config = small();
    let fake = FakeVllm::start(config.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), config.language.vocab);
    let rig = Plan::new(config).flags(&format!("--draft-model {}", folder.path().display())).start().await;
    let plain = json!({"temperature": 1.0});
    let first = fit(&rig, &plain, &expecting(|_| {}), 500).await;
    assert!(first.p_value > 1e-3 || fit(&rig, &plain, &expecting(|_| {}), 500).await.p_value > 1e-3, "{first:?}");
    assert!(rig.accepted() > 0.0);
    assert!(rig.metric("sidedraft_draft_duration_seconds_count", "neural") > 0.0);
}

#[tokio::test]
async fn a_draft_model_that_stops_is_done_without() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let fake = FakeVllm::start(config.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), 64);
    let source = ModelSource::from_path(folder.path());
    let model = DraftModel::load(&source, &ModelOptions::default()).unwrap().spawn().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let kept = model.clone();
    let sidecar =
        Harness::start_with(&fake.url(), &["--tokenizer", &path], |setup| setup.with_draft_model(model)).await;
    sidecar.sidecar.ready().await;
    let before = sidecar.complete(&greedy(20)).await;
    assert!(sidecar.metric("vllm:spec_decode_num_drafts_total", "") > 0.0);

    let hang = fake.hang_next("/inference/v1/generate");
    let body = greedy(20);
    let (during, ()) = tokio::join!(sidecar.complete(&body), async {
        hang.reached().await;
        kept.stop();
        hang.release();
    });
    let after = sidecar.complete(&greedy(20)).await;
    assert_eq!((&during["choices"], &after["choices"]), (&before["choices"], &before["choices"]));
    assert!((failures(&sidecar, "neural", "stopped") - 2.0).abs() < 1e-9);
    assert!(sidecar.metric("sidedraft_draft_model_failures_total", "").abs() < 1e-9, "it was told to stop");
}

#[tokio::test]
async fn what_runs_the_draft_model_is_on_the_metrics_page() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), 64);
    let sidecar = with_model(&fake, &folder, &["--draft-device", "cpu"]).await;
    assert!((sidecar.metric("sidedraft_draft_model_info", "device=\"cpu\",name=\"\"") - 1.0).abs() < 1e-9);
    assert!(sidecar.metric("sidedraft_draft_model_fallbacks_total", "").abs() < 1e-9, "the CPU was asked for");
}

#[tokio::test]
async fn a_draft_model_of_another_vocabulary_is_not_used() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), &TextCodec::new(60), 60);
    let right = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(right.path());
    let sidecar = with_model(&fake, &folder, &["--tokenizer", tokenizer.to_str().unwrap()]).await;
    sidecar.complete(&greedy(20)).await;
    assert!((failures(&sidecar, "neural", "vocabulary") - 1.0).abs() < 1e-9);
    assert!(sidecar.metric("sidedraft_drafter_available", "neural").abs() < 1e-9);
    assert!((sidecar.metric("sidedraft_drafter_available", "ngram") - 1.0).abs() < 1e-9);
    assert!((sidecar.metric("sidedraft_requests_total", "speculated") - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_draft_model_that_cannot_be_read_is_done_without() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), 64);
    let weights = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let sidecar = with_model(&fake, &folder, &[]).await;
    sidecar.complete(&greedy(20)).await;
    assert!((failures(&sidecar, "neural", "load") - 1.0).abs() < 1e-9);
    assert!((sidecar.metric("sidedraft_requests_total", "speculated") - 1.0).abs() < 1e-9);
}
