//! Sampling stays exact where the prefix cache swallows the rows of drafts.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::drafters::{drawing, often_right};
use super::exactness::{
    PROMPT, assert_exact, compare, expecting, ids, plain_sampling_is_exact, request, small_with_short_rows,
};
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
    assert_exact(&rig, json!({"temperature": 1}), expecting(|_| {})).await;
    assert!(lost(&rig) > 100.0);
}

/// Rollouts that each have a cache of their own, in which the second token is cached where it is one of `cached`: whether
/// its row is lost depends on what was drafted.
async fn with_cached_drafts(rig: &Rig, cached: &[u32], count: usize) -> Vec<Vec<u32>> {
    static SALT: AtomicUsize = AtomicUsize::new(0);
    let one = || async {
        let salt = format!("{}", SALT.fetch_add(1, Ordering::Relaxed));
        let first = 0..rig.fake.language().vocab as u32;
        let prompts: Vec<Vec<u32>> = first
            .flat_map(|first| cached.iter().map(move |second| [&PROMPT[..], &[first, *second, 0]].concat()))
            .collect();
        rig.complete_directly(&json!({"prompt": prompts, "max_tokens": 1, "cache_salt": salt})).await;
        let body: Value = request(&json!({"temperature": 1}), &json!({ "cache_salt": salt }));
        ids(&rig.complete(&body).await).remove(0)
    };
    let mut outputs = Vec::new();
    while outputs.len() < count {
        outputs.extend(join_all((0..50).map(|_| one())).await);
    }
    outputs
}

#[tokio::test]
async fn rows_that_are_lost_for_some_drafts_and_not_for_others() {
    for (runner, block_size) in [(Runner::V2, 4), (Runner::V2, 8), (Runner::V1, 4)] {
        let config = shared(runner, Garbage::Zeros, block_size);
        let drafters = drawing(&config.language);
        let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
        let fit = compare(&rig, &with_cached_drafts(&rig, &[1, 4], 1500).await, &expecting(|_| {}));
        if fit.p_value < 1e-3 {
            let again = compare(&rig, &with_cached_drafts(&rig, &[1, 4], 1500).await, &expecting(|_| {}));
            assert!(again.p_value > 1e-3, "{runner:?} {block_size}: {fit:?}, then {again:?}");
        }
        assert!(lost(&rig) > 100.0);
    }
}
