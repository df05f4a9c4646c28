//! Servers of other versions, frontends and settings: answers stay right, and the ways to verify are those that work.

use serde_json::{Value, json};

use super::compare::{comparable, same_answer};
use super::drafters::often_right;
use super::rig::{Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, Frontend, Garbage, GenerationDefaults, LogprobsMode, Runner, Version};

const WAYS: [&str; 3] = ["cached_suffix", "prompt_logprobs", "fan_out"];

async fn rig(config: FakeConfig) -> Rig {
    let config = FakeConfig { language: endless(), ..config };
    let drafters = often_right(&config.language);
    Plan::new(config).drafters(drafters).start().await
}

/// A request that leaves no parameter to the server's defaults, which not every server tells.
fn short() -> Value {
    let mut body = greedy(12);
    for (field, value) in [("top_p", 1.0), ("min_p", 0.0), ("repetition_penalty", 1.0)] {
        body[field] = json!(value);
    }
    body["top_k"] = json!(-1);
    body
}

fn long() -> Value {
    let mut body = short();
    body["prompt"] = json!((0..200).map(|at| at * 7 % 40).collect::<Vec<u32>>());
    body["logprobs"] = json!(1);
    body
}

/// Asserts that greedy answers of a short and a long context are right, and that exactly `ways` verified them.
async fn verified_by(config: FakeConfig, ways: &[&str]) {
    let rig = rig(config).await;
    for body in [short(), long()] {
        same_answer(&rig, &body).await;
    }
    let used: Vec<&str> = WAYS.into_iter().filter(|way| rig.verified(way) > 0.0).collect();
    assert_eq!(used, ways);
    assert!(rig.accepted() > 0.0);
}

#[tokio::test]
async fn an_old_server_scores_short_contexts_anew_and_samples_after_long_ones() {
    let old = FakeConfig { version: Version::new(0, 8), runner: Runner::V1, ..FakeConfig::default() };
    verified_by(old, &["prompt_logprobs", "fan_out"]).await;
}

#[tokio::test]
async fn a_server_of_before_the_flag_scores_the_suffix() {
    let config = FakeConfig { version: Version::new(0, 29), scale_out: false, ..FakeConfig::default() };
    verified_by(config, &["cached_suffix"]).await;
}

#[tokio::test]
async fn a_server_without_scale_out_does_as_an_old_one() {
    let config = FakeConfig { scale_out: false, ..FakeConfig::default() };
    verified_by(config, &["prompt_logprobs", "fan_out"]).await;
}

/// Its generation config might set a repetition penalty, under which a row tells nothing.
#[tokio::test]
async fn unknown_defaults_leave_even_greedy_decoding_to_the_server() {
    let defaults = GenerationDefaults { repetition_penalty: Some(1.5), ..GenerationDefaults::default() };
    let rig = rig(FakeConfig { scale_out: false, defaults, ..FakeConfig::default() }).await;
    same_answer(&rig, &greedy(30)).await;
    assert!(rig.verified("fan_out") > 0.0 && rig.verified("prompt_logprobs") == 0.0);
}

#[tokio::test]
async fn a_v1_runner_that_tells_what_was_cached_is_trusted() {
    for garbage in [Garbage::Zeros, Garbage::Stale, Garbage::Nan] {
        let config = FakeConfig { runner: Runner::V1, garbage, ..FakeConfig::default() };
        verified_by(config, &["cached_suffix"]).await;
    }
}

#[tokio::test]
async fn a_v1_runner_that_does_not_tell_what_was_cached_is_not_trusted() {
    for garbage in [Garbage::Zeros, Garbage::Stale, Garbage::Nan] {
        let config = FakeConfig { runner: Runner::V1, garbage, prompt_tokens_details: false, ..FakeConfig::default() };
        verified_by(config, &["prompt_logprobs", "fan_out"]).await;
    }
}

#[tokio::test]
async fn a_v2_runner_need_not_tell_what_was_cached() {
    verified_by(FakeConfig { prompt_tokens_details: false, ..FakeConfig::default() }, &["cached_suffix"]).await;
}

#[tokio::test]
async fn log_probabilities_that_are_not_raw_leave_it_to_the_server_to_sample() {
    for logprobs_mode in [LogprobsMode::RawLogits, LogprobsMode::ProcessedLogprobs, LogprobsMode::ProcessedLogits] {
        verified_by(FakeConfig { logprobs_mode, ..FakeConfig::default() }, &["fan_out"]).await;
    }
}

#[tokio::test]
async fn rows_of_one_log_probability_tell_too_little() {
    verified_by(FakeConfig { max_logprobs: 1, ..FakeConfig::default() }, &["fan_out"]).await;
}

#[tokio::test]
async fn without_prefix_caching_rows_are_never_lost() {
    verified_by(FakeConfig { prefix_caching: false, ..FakeConfig::default() }, &["cached_suffix"]).await;
}

/// It takes one prompt a request, and the order of its keys and its usage are its own business.
async fn rust_frontend(runner: Runner, strategy: &str, way: &str) {
    let language = endless();
    let config = FakeConfig { language, frontend: Frontend::Rust, runner, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
    for body in [short(), long()] {
        let (through, direct) = (rig.complete(&body).await, rig.complete_directly(&body).await);
        assert_eq!(comparable(through)["choices"], comparable(direct)["choices"]);
    }
    assert!(rig.verified(way) > 0.0, "{strategy} on {runner:?}: {}", rig.sidecar.sidecar.metrics().encode());
    assert!(rig.accepted() > 0.0);
}

#[tokio::test]
async fn the_rust_frontend_is_asked_one_prompt_at_a_time() {
    rust_frontend(Runner::V2, "fan-out", "fan_out").await;
    rust_frontend(Runner::V2, "auto", "cached_suffix").await;
    rust_frontend(Runner::V2, "prompt-logprobs", "prompt_logprobs").await;
    rust_frontend(Runner::V1, "cached-suffix", "fan_out").await;
}
