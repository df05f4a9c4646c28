//! Sampling is exact under the client's own parameters, and under those that the server fills in.

use serde_json::json;

use super::drafters::{drawing, often_right};
use super::exactness::{assert_exact, expecting, small};
use super::rig::{Plan, Rig};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults, LanguageModel};

async fn drawn(config: FakeConfig) -> Rig {
    let drafters = drawing(&config.language);
    Plan::new(config).drafters(drafters).start().await
}

#[tokio::test]
async fn top_k_at_a_temperature_is_told_by_rows() {
    let rig = drawn(small()).await;
    let expected = expecting(|p| (p.temperature, p.top_k) = (0.7, 3));
    assert_exact(&rig, json!({"temperature": 0.7, "top_k": 3}), expected).await;
    assert!(rig.verified("cached_suffix") > 0.0 && rig.verified("fan_out") == 0.0);
}

#[tokio::test]
async fn top_p_at_another_temperature_is_told_by_samples() {
    let rig = drawn(small()).await;
    let expected = expecting(|p| (p.temperature, p.top_p) = (0.8, 0.9));
    assert_exact(&rig, json!({"temperature": 0.8, "top_p": 0.9}), expected).await;
    assert!(rig.verified("fan_out") > 0.0 && rig.verified("cached_suffix") == 0.0);
}

#[tokio::test]
async fn top_p_at_temperature_1_is_told_by_rows() {
    let rig = drawn(small()).await;
    assert_exact(&rig, json!({"temperature": 1, "top_p": 0.7}), expecting(|p| p.top_p = 0.7)).await;
    assert!(rig.verified("cached_suffix") > 0.0);
}

#[tokio::test]
async fn min_p_is_told_by_rows_that_reach_below_it() {
    let rig = drawn(FakeConfig { max_logprobs: 4, ..small() }).await;
    let expected = expecting(|p| (p.temperature, p.min_p) = (0.9, 0.3));
    assert_exact(&rig, json!({"temperature": 0.9, "min_p": 0.3}), expected).await;
    assert!(rig.verified("cached_suffix") > 0.0);
    assert!(rig.metric("sidedraft_unknown_rows_total", "") > 0.0, "some rows end above the threshold");
}

fn with_defaults(scale_out: bool) -> FakeConfig {
    let defaults = GenerationDefaults { temperature: Some(0.6), top_k: Some(4), ..GenerationDefaults::default() };
    FakeConfig { defaults, scale_out, ..small() }
}

#[tokio::test]
async fn defaults_of_the_server_are_known_where_it_renders_requests() {
    let rig = drawn(with_defaults(true)).await;
    assert_exact(&rig, json!({}), expecting(|p| (p.temperature, p.top_k) = (0.6, 4))).await;
    assert!(rig.verified("cached_suffix") > 0.0 && rig.verified("fan_out") == 0.0);
}

#[tokio::test]
async fn unknown_defaults_of_the_server_leave_it_to_sample() {
    let rig = drawn(with_defaults(false)).await;
    assert_exact(&rig, json!({}), expecting(|p| (p.temperature, p.top_k) = (0.6, 4))).await;
    assert!(rig.verified("fan_out") > 0.0 && rig.verified("prompt_logprobs") == 0.0);
}

#[tokio::test]
async fn ties_at_the_border_of_top_k_are_left_to_the_server() {
    let language = LanguageModel { quantum: Some(1.0), ..small().language };
    let config = FakeConfig { language, ..small() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).start().await;
    assert_exact(&rig, json!({"temperature": 1, "top_k": 2}), expecting(|p| p.top_k = 2)).await;
    assert!(rig.metric("sidedraft_unknown_rows_total", "") > 0.0);
}
