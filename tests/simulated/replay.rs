//! What the rollouts of one epoch are worth in the next.

use super::rig::{Rig, TOKENS, Workload};

#[tokio::test(start_paused = true)]
async fn old_rollouts_are_replayed_where_that_is_faster() {
    let mut rig = Rig::with_history_alone(&["--replay"]).await;
    // A rejection ends a replay, of which there is one in four hundred tokens: many rollouts tell how long they last.
    let workload = Workload { requests: 24, ..Workload::new(1, 1.0) };
    let first = rig.epoch(1, workload).await;
    let rollouts = workload.requests as f64;
    let accepted = |rig: &Rig| rig.metric("sidedraft_accepted_tokens_total", "\"replay\"");
    assert_eq!(accepted(&rig), 0.0, "the first epoch has nothing to replay");
    // The second finds out what replays are worth.
    rig.epoch(2, workload).await;
    let before = accepted(&rig);
    let rounds_before = rig.metric("vllm:spec_decode_num_drafts_total", "");
    let third = rig.epoch(3, workload).await;
    let replayed = accepted(&rig) - before;
    let rounds = rig.metric("vllm:spec_decode_num_drafts_total", "") - rounds_before;
    println!("{first:.2} s without, {third:.2} s with replays: {replayed} tokens accepted in {rounds} rounds");
    assert!(third < 0.85 * first, "{third:.2} s, and {first:.2} s without");
    assert!(replayed > 0.2 * rollouts * TOKENS as f64, "{replayed}");
    assert!(replayed / rounds > 6.0, "{replayed} in {rounds} rounds");
}
