//! Sampling stays exact where the prefix cache swallows the rows of drafts.

use super::drafters::{drawing, often_right};
use super::exactness::{assert_exact, expecting, plain_sampling_is_exact, small_with_short_rows};
use super::rig::{Plan, Rig};
use super::support::fake_vllm::{FakeConfig, Garbage, Runner};

/// Blocks of `block_size` tokens, all of which every rollout shares: nobody salts.
fn shared(runner: Runner, garbage: Garbage, block_size: usize) -> FakeConfig {
    FakeConfig { block_size, runner, garbage, ..small_with_short_rows() }
}

fn lost(rig: &Rig) -> f64 {
    rig.metric("sidedraft_lost_rows_total", "")
}

async fn drawn(config: FakeConfig) -> Rig {
    let drafters = drawing(&config.language);
    plain_sampling_is_exact(Plan::new(config).strategy("cached-suffix").drafters(drafters)).await
}

#[tokio::test]
async fn drawn_drafts_on_a_v2_runner() {
    assert!(lost(&drawn(shared(Runner::V2, Garbage::Zeros, 4)).await) > 100.0);
}

#[tokio::test]
async fn drawn_drafts_on_a_v2_runner_whose_blocks_end_elsewhere() {
    assert!(lost(&drawn(shared(Runner::V2, Garbage::Zeros, 3)).await) > 100.0);
}

#[tokio::test]
async fn drawn_drafts_on_a_v1_runner_that_shows_stale_rows() {
    assert!(lost(&drawn(shared(Runner::V1, Garbage::Stale, 4)).await) > 100.0);
}

#[tokio::test]
async fn drawn_drafts_on_a_v1_runner_that_cannot_print_its_rows() {
    let rig = drawn(shared(Runner::V1, Garbage::Nan, 4)).await;
    assert!(rig.verified("cached_suffix") > 0.0);
}

#[tokio::test]
async fn certain_drafts() {
    let config = shared(Runner::V2, Garbage::Zeros, 4);
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
    assert_exact(&rig, serde_json::json!({"temperature": 1}), expecting(|_| {})).await;
    assert!(lost(&rig) > 100.0);
}
