//! Plain sampling is exact by every way of verifying, with every kind of draft, and a wrong rule is noticed.

use std::sync::Arc;

use serde_json::json;

use sidedraft::speculation::{AcceptanceRule, Lossless};

use super::drafters::{almost_exact, drawing, drawing_from_four, mistaken, often_right};
use super::exactness::{expecting, fit, plain_sampling_is_exact, small, small_with_short_rows};
use super::rig::Plan;
use super::support::fake_vllm::{FakeConfig, Garbage, Runner};
use super::support::planted::{AcceptAll, NothingSubtracted};

#[tokio::test]
async fn drawn_drafts_verified_by_the_cached_suffix() {
    let config = small_with_short_rows();
    let drafters = drawing(&config.language);
    let rig = plain_sampling_is_exact(Plan::new(config).strategy("cached-suffix").drafters(drafters)).await;
    assert!(rig.verified("cached_suffix") > 0.0);
    assert!(rig.metric("sidedraft_tail_samples_total", "") > 0.0, "short rows leave a tail");
}

#[tokio::test]
async fn drawn_drafts_verified_by_the_cached_suffix_of_a_v1_runner() {
    let config = FakeConfig { runner: Runner::V1, garbage: Garbage::Stale, ..small_with_short_rows() };
    let drafters = drawing_from_four(&config.language);
    let rig = plain_sampling_is_exact(Plan::new(config).strategy("cached-suffix").drafters(drafters)).await;
    assert!(rig.verified("cached_suffix") > 0.0);
}

#[tokio::test]
async fn drawn_drafts_verified_by_prompt_logprobs() {
    let config = small_with_short_rows();
    let drafters = drawing(&config.language);
    let rig = plain_sampling_is_exact(Plan::new(config).strategy("prompt-logprobs").drafters(drafters)).await;
    assert!(rig.verified("prompt_logprobs") > 0.0 && rig.metric("sidedraft_tail_samples_total", "") > 0.0);
}

#[tokio::test]
async fn drawn_drafts_verified_by_fan_out() {
    let config = small();
    let drafters = drawing(&config.language);
    let rig = plain_sampling_is_exact(Plan::new(config).strategy("fan-out").drafters(drafters)).await;
    assert!(rig.verified("fan_out") > 0.0);
}

#[tokio::test]
async fn certain_drafts_verified_by_the_cached_suffix() {
    let config = small_with_short_rows();
    let drafters = often_right(&config.language);
    plain_sampling_is_exact(Plan::new(config).strategy("cached-suffix").drafters(drafters)).await;
}

#[tokio::test]
async fn certain_drafts_verified_by_prompt_logprobs() {
    let config = small();
    let drafters = often_right(&config.language);
    plain_sampling_is_exact(Plan::new(config).strategy("prompt-logprobs").drafters(drafters)).await;
}

/// The drafts are right so often that what a rejection leaves is next to nothing, most of it in the tail.
#[tokio::test]
async fn a_drafter_that_is_almost_right() {
    let config = small_with_short_rows();
    let drafters = almost_exact(&config.language);
    plain_sampling_is_exact(Plan::new(config).strategy("prompt-logprobs").drafters(drafters)).await;
}

async fn fit_of(rule: Arc<dyn AcceptanceRule>, strategy: &str) -> f64 {
    let config = small_with_short_rows();
    let drafters = mistaken(&config.language);
    let rig = Plan::new(config).strategy(strategy).drafters(drafters).rule(rule).start().await;
    fit(&rig, &json!({"temperature": 1.0}), &expecting(|_| {}), 4000).await.p_value
}

#[tokio::test]
async fn rules_that_are_not_lossless_are_noticed() {
    assert!(fit_of(Arc::new(AcceptAll), "prompt-logprobs").await < 1e-9);
    assert!(fit_of(Arc::new(NothingSubtracted), "cached-suffix").await < 1e-9);
    let lossless = fit_of(Arc::new(Lossless), "prompt-logprobs").await;
    assert!(lossless > 1e-3 || fit_of(Arc::new(Lossless), "prompt-logprobs").await > 1e-3);
}
