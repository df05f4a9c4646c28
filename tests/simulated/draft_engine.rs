//! The simulated draft model takes what its cost says, and serves whoever waits in one step.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::support::draft_engine::DraftEngine;
use super::support::fake_vllm::DraftCost;
use super::support::timeline::Timeline;

async fn tokens(engine: &DraftEngine, count: usize) -> u128 {
    let start = Instant::now();
    for _ in 0..count {
        engine.token(0).await;
    }
    start.elapsed().as_micros()
}

#[tokio::test(start_paused = true)]
async fn a_rollout_alone_pays_for_each_token() {
    let engine = DraftEngine::start(DraftCost::h100_8b(), Timeline::start());
    assert_eq!(tokens(&engine, 7).await, 7 * 600);
}

#[tokio::test(start_paused = true)]
async fn a_context_is_read_in_the_step_of_its_first_token_which_all_wait_for() {
    let cost = DraftCost { read: Duration::from_micros(50), ..DraftCost::h100_8b() };
    let engine = DraftEngine::start(cost, Timeline::start());
    let start = Instant::now();
    tokio::join!(engine.token(1_000), engine.token(0));
    assert_eq!(start.elapsed().as_micros(), 620 + 50_000);
    assert_eq!(tokens(&engine, 2).await, 2 * 600);
}

#[tokio::test(start_paused = true)]
async fn rollouts_share_steps_as_long_as_they_wait() {
    let engine = DraftEngine::start(DraftCost::h100_8b(), Timeline::start());
    let all = join_all([3, 1, 2].map(|count| tokens(&engine, count))).await;
    assert_eq!(all, [640 + 620 + 600, 640, 640 + 620]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_during_a_step_is_in_the_next_and_who_goes_is_in_none() {
    let timeline = Timeline::start();
    let engine = DraftEngine::start(DraftCost::h100_8b(), timeline.clone());
    let late = async {
        timeline.pass(Duration::from_micros(100)).await;
        tokens(&engine, 1).await
    };
    let gone = async {
        timeline.pass(Duration::from_micros(200)).await;
        tokio::select! {
            () = engine.token(0) => panic!("the step has not ended"),
            () = timeline.pass(Duration::from_micros(100)) => {}
        }
    };
    let (first, late, ()) = tokio::join!(tokens(&engine, 2), late, gone);
    assert_eq!((first, late), (600 + 620, 500 + 620));
}
