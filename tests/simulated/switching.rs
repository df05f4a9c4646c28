//! A rollout may change its way as often as it likes: what it says stays the server's.

use std::time::Duration;

use super::rig::{Rig, TOKENS, Workload, heading};
use super::support::fake_vllm::DraftCost;

#[tokio::test(start_paused = true)]
async fn a_greedy_rollout_that_leaves_its_stream_says_what_the_server_alone_would_have_said() {
    let mut rig = Rig::start(0.85, &[]).await;
    let workload = Workload { clients: 1, requests: 1, tokens: 200, temperature: 0.0 };
    for _ in 0..4 {
        assert!(rig.says_the_same(workload).await);
    }
    let steps = |mode: &str, reason: &str| {
        rig.metric("sidedraft_steps_total", &format!("mode=\"{mode}\",reason=\"{reason}\"")) as u32
    };
    assert!(steps("decode", "unmeasured") >= 1, "the first rollout begins as a stream");
    assert!(steps("speculate", "fastest") > 50, "and is the first to leave it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_left_when_the_crowd_has_gone() {
    // One rollout is four times as long as the others: its rest is worth speculating.
    let mut rig = Rig::start(0.85, &[]).await;
    let crowd = Workload { clients: 63, requests: 1, tokens: 64, temperature: 1.0 };
    let tail = Workload { clients: 1, requests: 1, tokens: 512, temperature: 1.0 };
    // What happens after that is known by then.
    rig.run_beside(crowd, tail, true).await;
    let direct = rig.run_beside(crowd, tail, false).await;
    let before = rig.metric("sidedraft_decoded_tokens_total", "");
    let proxied = rig.run_beside(crowd, tail, true).await;
    let decoded = rig.metric("sidedraft_decoded_tokens_total", "") - before;
    println!("long tail: {direct:.3} s directly, {proxied:.3} s through the sidecar, {:.3}", proxied / direct);
    assert!(proxied < 0.85 * direct, "{proxied:.3} s against {direct:.3} s");
    assert!(decoded > 0.8 * 63.0 * 64.0, "the crowd was decoded");
}

#[tokio::test(start_paused = true)]
async fn what_drafts_cost_in_a_crowd_is_not_held_against_a_rollout_alone() {
    // A rollout of a crowd that tries speculation has its context read by the draft model first, which takes as long as
    // decoding several tokens, and those that try at the same time wait for each other.
    let slow_reader = DraftCost { read: Duration::from_micros(50), ..DraftCost::h100_8b() };
    let mut rig = Rig::with_draft_model(slow_reader, 0.85, &[]).await;
    let crowd = rig.compare(Workload { clients: 32, requests: 4, tokens: TOKENS, temperature: 1.0 }).await;
    let alone = rig.compare(Workload::new(1, 1.0)).await;
    heading();
    crowd.print("85% accepted");
    alone.print("after the crowd");
    // Those who try pay for the reading, and so do those who wait for them.
    assert!(crowd.ratio() >= 0.95, "{:.3} in a crowd", crowd.ratio());
    assert!(alone.ratio() >= 2.2, "{:.3} alone", alone.ratio());
}
