//! What rollouts leave to others of their prompt: drafts for the same tenant and nobody else, and answers as they were.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::speculation::{AcceptanceRule, Lossless, Proposal};

use super::drafters::told;
use super::exactness::{PROMPT, compare, expecting, ids, request, small};
use super::replies::with;
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, answer, endless, greedy};
use super::support::fake_vllm::{FakeConfig, Garbage, LanguageModel, Runner, Version};
use super::support::planted::NothingSubtracted;
use super::support::stats::GTest;

/// A sidecar whose own drafters have no idea.
async fn remembering(config: FakeConfig, flags: &str, rule: Arc<dyn AcceptanceRule>) -> Rig {
    Plan::new(config).drafters(told(|_| Ok(Proposal::default()))).flags(flags).rule(rule).start().await
}

pub fn replays(rig: &Rig, rows: &str) -> f64 {
    rig.metric("sidedraft_replays_total", rows)
}

/// The ids of a completion on behalf of a tenant.
pub async fn complete_as(rig: &Rig, key: &str, salt: Option<&str>, body: &Value) -> Vec<Vec<u32>> {
    let mut body = body.clone();
    if let Some(salt) = salt {
        body["cache_salt"] = json!(salt);
    }
    let request = rig.sidecar.http.post(format!("{}{COMPLETIONS}", rig.sidecar.url)).bearer_auth(key).json(&body);
    let (status, reply) = answer(request).await;
    assert_eq!(status, StatusCode::OK, "{reply:?}");
    ids(&serde_json::from_slice(&reply).unwrap())
}

pub const TENANTS: [(&str, Option<&str>); 4] =
    [("key-a", None), ("key-b", None), ("key-a", Some("salt-1")), ("key-a", Some("salt-2"))];

#[tokio::test]
async fn the_suffix_drafter_knows_the_tenants_own_rollouts_alone() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let rig = remembering(config, "--suffix --decode-burst 1", Arc::new(Lossless)).await;
    let accepted = || rig.metric("sidedraft_accepted_tokens_total", "\"suffix\"");
    let body = greedy(12);
    let direct = ids(&rig.complete_directly(&body).await);
    let mut alone = None;
    for (key, salt) in TENANTS {
        let before = accepted();
        assert_eq!(complete_as(&rig, key, salt, &body).await, direct);
        let gained = accepted() - before;
        // Each of them is the first of its tenant, and finds no more than its own text gives.
        assert_eq!(*alone.get_or_insert(gained), gained, "{key} {salt:?}");
    }
    for (key, salt) in TENANTS {
        let before = accepted();
        assert_eq!(complete_as(&rig, key, salt, &body).await, direct);
        assert!(accepted() - before > alone.unwrap() + 4.0, "{key} {salt:?}: the second knows the first");
    }
}

#[tokio::test]
async fn an_old_rollout_is_replayed_to_its_own_tenant_alone() {
    let rig = remembering(FakeConfig { language: endless(), ..small() }, "--replay", Arc::new(Lossless)).await;
    rig.sidecar.update_weights(1).await;
    let body = request(&json!({"temperature": 1.0}), &json!({}));
    complete_as(&rig, "key-a", None, &body).await;
    rig.sidecar.update_weights(2).await;
    for (key, salt) in &TENANTS[1..] {
        complete_as(&rig, key, *salt, &body).await;
    }
    assert_eq!(replays(&rig, ""), 0.0);
    complete_as(&rig, "key-a", None, &body).await;
    assert_eq!(replays(&rig, "\"used\""), 1.0);
}

#[tokio::test]
async fn an_old_rollout_serves_one_new_one() {
    let rig = remembering(small(), "--replay", Arc::new(Lossless)).await;
    let sample = |n: usize| request(&json!({"temperature": 1.0}), &json!({ "n": n }));
    for (weights, n, in_all) in [(1, 4, 0.0), (1, 4, 0.0), (2, 20, 8.0), (2, 3, 8.0), (3, 40, 8.0 + 23.0)] {
        if rig.metric("sidedraft_control_requests_total", "\"resume\"") < f64::from(weights) {
            rig.sidecar.update_weights(weights).await;
        }
        rig.complete(&sample(n)).await;
        assert_eq!(replays(&rig, ""), in_all, "{n} under {weights}");
    }
    assert_eq!(rig.metric("sidedraft_history_rollouts", ""), 71.0);
}

#[tokio::test]
async fn nothing_is_remembered_where_it_is_off() {
    for flags in ["", "--suffix --replay --history-bytes 0"] {
        let rig = remembering(small(), flags, Arc::new(Lossless)).await;
        for weights in [1, 2] {
            rig.sidecar.update_weights(weights).await;
            rig.complete(&request(&json!({"temperature": 1.0}), &json!({"n": 3}))).await;
        }
        assert_eq!(replays(&rig, ""), 0.0);
        assert!(!rig.sidecar.sidecar.metrics().encode().contains("sidedraft_history_rollouts"));
    }
}

/// Samples rollouts under one policy, and as many under the next, which replay them; the fit of those to its law.
async fn replayed(config: FakeConfig, flags: &str, rule: Arc<dyn AcceptanceRule>) -> (Rig, GTest) {
    const AT_ONCE: usize = 50;
    const ROLLOUTS: usize = 2000;
    let rig = remembering(config, flags, rule).await;
    let body = request(&json!({"temperature": 1.0}), &json!({ "n": AT_ONCE }));
    let mut outputs = Vec::new();
    for weights in [1, 2] {
        rig.sidecar.update_weights(weights).await;
        outputs.clear();
        for _ in 0..ROLLOUTS / AT_ONCE {
            outputs.extend(ids(&rig.complete(&body).await));
        }
    }
    assert_eq!(replays(&rig, "\"used\""), ROLLOUTS as f64);
    let fit = compare(&rig, &outputs, &expecting(|_| {}));
    (rig, fit)
}

pub fn far_apart(config: FakeConfig) -> FakeConfig {
    let language = LanguageModel { drift: 0.6, ..config.language };
    FakeConfig { language, ..config }
}

async fn is_exact(config: FakeConfig, flags: &str) -> Rig {
    let (rig, first) = replayed(config.clone(), flags, Arc::new(Lossless)).await;
    if first.p_value < 1e-3 {
        let (_, second) = replayed(config, flags, Arc::new(Lossless)).await;
        assert!(second.p_value > 1e-3, "{flags}: {first:?}, then {second:?}");
    }
    let accepted = rig.metric("sidedraft_accepted_tokens_total", "\"replay\"");
    assert!(accepted > 400.0, "{accepted}");
    rig
}

/// Rounds that the class rule judged by the ids of the old row, and by those of both rows.
fn rounds(rig: &Rig) -> (f64, f64) {
    let of = |ids: &str| rig.metric("sidedraft_class_rounds_total", ids);
    (of("\"given\""), of("\"common\""))
}

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy() {
    let (given, common) = rounds(&is_exact(far_apart(small()), "--replay").await);
    assert!(given >= 2000.0 && common == 0.0, "{given} {common}");
}

/// Neither V1 runners nor releases before 0.31 score given ids.
#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy_where_no_given_ids_are_scored() {
    for config in [
        FakeConfig { runner: Runner::V1, garbage: Garbage::Stale, ..far_apart(small()) },
        FakeConfig { version: Version::new(0, 30), ..far_apart(small()) },
    ] {
        let (given, common) = rounds(&is_exact(config, "--replay").await);
        assert!(given == 0.0 && common >= 2000.0, "{given} {common}");
    }
}

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy_where_rows_are_short() {
    for version in [Version::CURRENT, Version::new(0, 30)] {
        let config = FakeConfig { max_logprobs: 4, version, ..far_apart(small()) };
        let rig = is_exact(config, "--replay --suffix").await;
        assert!(rig.metric("sidedraft_tail_samples_total", "") > 0.0, "short rows leave a tail");
    }
}

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy_where_the_cache_swallows_rows() {
    for version in [Version::CURRENT, Version::new(0, 30)] {
        let config = FakeConfig { block_size: 2, version, ..far_apart(small()) };
        let rig = is_exact(config, "--replay --strategy cached-suffix").await;
        assert!(rig.metric("sidedraft_lost_rows_total", "") > 0.0);
        // With given ids a reply tells of all of them or of none.
        let recomputed = rig.metric("sidedraft_recomputed_contexts_total", "");
        assert_eq!(recomputed > 0.0, version == Version::CURRENT, "{recomputed}");
    }
}

/// What another rollout has left in the server's cache loses most rows of a replay at once.
#[tokio::test]
async fn many_lost_rows_are_asked_for_in_one_request() {
    // So sure of itself that its tokens are among those that a row keeps.
    let language = LanguageModel { drift: 0.0, sharpness: 40.0, eos_bias: -1000.0, ..endless() };
    // Without given ids, the first row is asked for apart: it may be lost by the context alone.
    for (runner, requests) in [(Runner::V1, 3), (Runner::V2, 2)] {
        let config = FakeConfig { language: language.clone(), runner, block_size: 4, ..FakeConfig::default() };
        let rig = remembering(config, "--replay --draft-tokens 64", Arc::new(Lossless)).await;
        rig.sidecar.update_weights(1).await;
        let body = with(request(&json!({"temperature": 1.0}), &json!({})), &json!({"max_tokens": 40}));
        let old = ids(&rig.complete(&body).await);
        rig.sidecar.update_weights(2).await;
        let whole = [&PROMPT[..], &old[0]].concat();
        rig.complete_directly(&json!({"prompt": whole, "max_tokens": 1})).await;
        rig.fake.forget_requests();
        assert_eq!(ids(&rig.complete(&body).await), old, "weights that did not move accept every token");
        assert_eq!(rig.fake.requests_to(GENERATE).len(), requests, "{runner:?}");
        assert!(rig.metric("sidedraft_lost_rows_total", "") > 30.0);
        assert_eq!(rig.metric("sidedraft_recomputed_contexts_total", ""), 1.0);
    }
}

/// After a rejection SPEC-RL goes on with a sample of the policy, as if the draft had never been.
#[tokio::test]
async fn a_replay_that_samples_from_the_policy_after_a_rejection_is_noticed() {
    let (_, fit) = replayed(far_apart(small()), "--replay", Arc::new(NothingSubtracted)).await;
    assert!(fit.p_value < 1e-9, "{fit:?}");
}
