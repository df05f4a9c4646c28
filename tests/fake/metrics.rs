//! `/health` and `/metrics`.

use std::collections::HashMap;

use http::StatusCode;
use serde_json::json;
use sidedraft::draft::DraftRequest;
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::told;
use super::rig::{Plan, Rig, STRATEGIES, answer, endless, greedy};
use super::support::fake_vllm::{FakeConfig, LanguageModel, argmax};

#[tokio::test]
async fn health_is_the_servers() {
    let rig = Rig::usual().await;
    let health = || answer(rig.sidecar.http.get(format!("{}/health", rig.sidecar.url)));
    assert_eq!(health().await, (StatusCode::OK, "".into()));
    rig.fake.kill().await;
    let (status, body) = health().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains(&rig.fake.url()));
    rig.fake.restart().await;
    assert_eq!(health().await.0, StatusCode::OK);
}

async fn page(rig: &Rig) -> String {
    let (status, page) = answer(rig.sidecar.http.get(format!("{}/metrics", rig.sidecar.url))).await;
    assert_eq!(status, StatusCode::OK);
    String::from_utf8(page.to_vec()).unwrap()
}

#[tokio::test]
async fn one_page_has_each_family_of_both_once() {
    let rig = Rig::usual().await;
    rig.complete(&greedy(20)).await;
    let page = page(&rig).await;
    let mut headers: HashMap<&str, usize> = HashMap::new();
    for line in page.lines().filter(|line| line.starts_with('#')) {
        let header = line.splitn(4, ' ').take(3).last().unwrap();
        *headers.entry(header).or_default() += 1;
    }
    assert!(headers.values().all(|count| *count == 2), "one HELP and one TYPE each: {headers:?}");
    for family in [
        "vllm:num_requests_running",
        "vllm:request_success_total",
        "vllm:spec_decode_num_drafts_total",
        "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        "sidedraft_requests_total",
        "sidedraft_verify_duration_seconds",
    ] {
        assert!(headers.contains_key(family), "{family}");
    }
    rig.fake.kill().await;
    assert!(self::page(&rig).await.contains("sidedraft_requests_total"), "its own without the server");
}

/// Right at the first two of three positions, wrong at the third.
fn two_of_three(language: LanguageModel) -> impl Fn(DraftRequest<'_>) -> Proposal {
    move |request| {
        let mut context = request.context.to_vec();
        let mut drafts = Vec::new();
        for position in 0..request.length.min(3) {
            let best = argmax(&language.logits(&context)) as u32;
            let token = if position < 2 { best } else { (best + 1) % 60 };
            context.push(token);
            drafts.push(Draft::certain(token));
        }
        Proposal { drafts }
    }
}

#[tokio::test]
async fn acceptance_is_counted_by_position() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let propose = two_of_three(endless());
        let drafters = told(move |request| Ok(propose(request)));
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        // One decoded token, then four rounds of two accepted drafts and the server's token.
        rig.complete(&greedy(13)).await;
        let count = |name: &str, labels: &str| rig.metric(name, labels) as usize;
        let drafts = ["drafts", "draft_tokens", "accepted_tokens"]
            .map(|name| count(&format!("vllm:spec_decode_num_{name}_total"), ""));
        // The last round has no room for its third draft.
        assert_eq!(drafts, [4, 11, 8], "{strategy}");
        let position =
            |at: usize| count("vllm:spec_decode_num_accepted_tokens_per_pos_total", &format!("position=\"{at}\""));
        assert_eq!([position(0), position(1), position(2)], [4, 4, 0]);
        assert_eq!(count("sidedraft_decoded_tokens_total", ""), 1);
        assert_eq!(count("sidedraft_verify_calls_total", &strategy.replace('-', "_")), 4);
        assert_eq!(count("sidedraft_requests_total", "outcome=\"speculated\""), 1);
        assert_eq!(count("sidedraft_rollouts_running", ""), 0);
        assert_eq!(count("sidedraft_upstream_ready", ""), 1);
        assert_eq!(count("sidedraft_draft_duration_seconds_count", ""), 4);
        assert_eq!(count("sidedraft_request_duration_seconds_count", "speculated"), 1);
    }
}

#[tokio::test]
async fn requests_are_counted_by_what_became_of_them() {
    let rig = Rig::usual().await;
    rig.complete(&json!({"prompt": [1], "echo": true})).await;
    rig.complete(&json!({"prompt": [1]})).await;
    rig.fake.fail_next("/v1/completions", 10, StatusCode::INTERNAL_SERVER_ERROR);
    rig.through("/v1/completions", &json!({"prompt": [1]})).await;
    assert_eq!(["forwarded", "speculated", "failed"].map(|outcome| rig.outcome(outcome) as usize), [1, 1, 1]);
}
