//! What rollouts leave to others of their prompt: drafts for the same tenant and nobody else, and answers as they were.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::speculation::{AcceptanceRule, Lossless, Proposal};

use super::drafters::told;
use super::exactness::{compare, expecting, ids, request, small};
use super::rig::{COMPLETIONS, Plan, Rig, answer, endless, greedy};
use super::support::fake_vllm::{FakeConfig, LanguageModel};
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

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy() {
    is_exact(far_apart(small()), "--replay").await;
}

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy_where_rows_are_short() {
    let rig = is_exact(FakeConfig { max_logprobs: 4, ..far_apart(small()) }, "--replay --suffix").await;
    assert!(rig.metric("sidedraft_tail_samples_total", "") > 0.0, "short rows leave a tail");
}

#[tokio::test]
async fn replayed_rollouts_follow_the_new_policy_where_the_cache_swallows_rows() {
    let rig = is_exact(FakeConfig { block_size: 2, ..far_apart(small()) }, "--replay --strategy cached-suffix").await;
    assert!(rig.metric("sidedraft_lost_rows_total", "") > 0.0);
}

/// After a rejection SPEC-RL goes on with a sample of the policy, as if the draft had never been.
#[tokio::test]
async fn a_replay_that_samples_from_the_policy_after_a_rejection_is_noticed() {
    let (_, fit) = replayed(far_apart(small()), "--replay", Arc::new(NothingSubtracted)).await;
    assert!(fit.p_value < 1e-9, "{fit:?}");
}
