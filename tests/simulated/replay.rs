//! What the rollouts of one epoch are worth in the next.

use super::rig::{Rig, TOKENS, Workload};

#[tokio::test(start_paused = true)]
async fn old_rollouts_are_replayed_where_that_is_faster() {
    let mut rig = Rig::with_history_alone(&["--replay"]).await;
    // A rejection ends a replay, early or late: it takes many rollouts to tell how long replays last.
    let workload = Workload { requests: 24, ..Workload::new(1, 1.0) };
    let first = rig.epoch(1, workload).await;
    let rollouts = workload.requests as f64;
    let counts = |rig: &Rig| {
        let accepted = rig.metric("sidedraft_accepted_tokens_total", "\"replay\"");
        (accepted, rig.metric("vllm:spec_decode_num_drafts_total", ""))
    };
    assert_eq!(counts(&rig), (0.0, 0.0), "the first epoch has nothing to replay");
    // The second finds out what replays are worth.
    rig.epoch(2, workload).await;
    let before = counts(&rig);
    let third = rig.epoch(3, workload).await;
    let after = counts(&rig);
    let (replayed, rounds) = (after.0 - before.0, after.1 - before.1);
    println!("{first:.2} s without, {third:.2} s with replays: {replayed} tokens accepted in {rounds} rounds");
    assert!(third < 0.85 * first, "{third:.2} s, and {first:.2} s without");
    assert!(replayed > 0.2 * rollouts * TOKENS as f64, "{replayed}");
    assert!(replayed / rounds > 6.0, "{replayed} in {rounds} rounds");
}
