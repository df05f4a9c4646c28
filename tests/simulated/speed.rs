//! Faster where it can be, and never slower, by the profile `h100-8b`: prompts of 1024 tokens, rollouts of 512.
//!
//! One test for each number of clients, so that each can be read, and run, by itself.

use super::bounds::Rollout;
use super::rig::{Compared, PROMPT, Rig, TOKENS, Workload, heading, seconds};
use super::support::fake_vllm::{CostModel, DraftCost};

/// Neither way may be slower than the other by more than this where they ought to be equal.
const EVEN: f64 = 0.97;
/// By how much the ratio of eight rollouts may miss that of all, three in a thousand times.
const SAMPLING_ERROR: f64 = 0.03;
/// The longest proposal that the sidecar makes.
const MOST_DRAFTS: usize = 64;

async fn compare(name: &str, acceptance: f64, clients: usize, temperature: f64) -> Compared {
    let flags = ["--draft-tokens", &MOST_DRAFTS.to_string()].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let compared = Rig::start(acceptance, &flags).await.compare(Workload::new(clients, temperature)).await;
    heading();
    compared.print(name);
    compared
}

async fn at_least(least: f64, acceptance: f64, clients: usize) {
    let name = format!("{:.0}% accepted", acceptance * 100.0);
    let ratio = compare(&name, acceptance, clients, 1.0).await.ratio();
    assert!(ratio >= least, "{ratio:.3} with {clients} clients, {name}");
}

#[tokio::test(start_paused = true)]
async fn a_good_drafter_more_than_doubles_a_rollout_alone() {
    at_least(2.2, 0.85, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_drafter_speeds_up_eight_rollouts() {
    at_least(1.5, 0.85, 8).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_drafter_slows_down_no_thirty_two_rollouts() {
    at_least(EVEN, 0.85, 32).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_drafter_slows_down_no_hundred_and_twenty_eight() {
    at_least(EVEN, 0.85, 128).await;
}

#[tokio::test(start_paused = true)]
async fn a_good_drafter_slows_down_no_two_hundred_and_fifty_six() {
    at_least(EVEN, 0.85, 256).await;
}

#[tokio::test(start_paused = true)]
async fn a_middling_drafter_speeds_up_a_rollout_alone() {
    // 1.2 is what the arithmetic allows (2 drafts in turn: 1.206); eight rollouts are a sample of it.
    at_least(1.2 - SAMPLING_ERROR, 0.5, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_middling_drafter_slows_down_no_eight_rollouts() {
    at_least(EVEN, 0.5, 8).await;
}

#[tokio::test(start_paused = true)]
async fn a_middling_drafter_slows_down_no_thirty_two_rollouts() {
    at_least(EVEN, 0.5, 32).await;
}

#[tokio::test(start_paused = true)]
async fn a_middling_drafter_slows_down_no_hundred_and_twenty_eight() {
    at_least(EVEN, 0.5, 128).await;
}

#[tokio::test(start_paused = true)]
async fn a_middling_drafter_slows_down_no_two_hundred_and_fifty_six() {
    at_least(EVEN, 0.5, 256).await;
}

#[tokio::test(start_paused = true)]
async fn plain_decoding_through_the_sidecar_takes_as_long_as_without_it() {
    heading();
    for clients in [1, 32, 256] {
        let compared = Rig::without_drafters().await.compare(Workload::new(clients, 1.0)).await;
        compared.print("none");
        let ratio = compared.ratio();
        assert!((EVEN..1.01).contains(&ratio), "{ratio:.3} with {clients} clients");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drafter_that_is_always_wrong_costs_nearly_nothing() {
    for clients in [1, 8, 32] {
        let ratio = compare("always wrong", 0.0, clients, 0.0).await.ratio();
        assert!(ratio >= EVEN, "{ratio:.3} with {clients} clients");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drafter_that_is_always_right_comes_near_the_bound() {
    let compared = compare("always right", 1.0, 1, 0.0).await;
    let (model, draft) = (CostModel::h100_8b(), DraftCost::h100_8b());
    let rollout = Rollout { model, draft, prompt: PROMPT, tokens: TOKENS, block: 16, most: MOST_DRAFTS };
    let bound = seconds(rollout.in_turn()) * compared.workload.requests as f64;
    println!(
        "bound: {bound:.3} s in turn, {:.3} s overlapped; took {:.3} s",
        seconds(rollout.overlapped()) * compared.workload.requests as f64,
        compared.proxied
    );
    assert!((compared.direct - seconds(rollout.decoded()) * compared.workload.requests as f64).abs() < 1e-6);
    assert!(compared.proxied <= bound * 1.1, "{:.3} s where {bound:.3} s is possible", compared.proxied);
}
