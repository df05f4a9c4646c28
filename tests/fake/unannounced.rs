//! Weights that a trainer changes behind the sidecar's back: found out where the server tells, and counted.

use std::time::Duration;

use serde_json::json;
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::{often_right, told};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, endless};
use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, LanguageModel};
use super::trainer::{Choice, ask, choice, hung_in, request, send};

async fn rig(strategy: &str) -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    Plan::new(config).strategy(strategy).drafters(drafters).start().await
}

fn unannounced(rig: &Rig) -> usize {
    rig.metric("sidedraft_unannounced_versions_total", "") as usize
}

fn stale(rig: &Rig) -> usize {
    rig.metric("sidedraft_stale_rounds_total", "") as usize
}

/// Asserts that each token is greedy under the version that its span names; returns the versions in their order.
fn versions<'a>(rig: &Rig, choice: &Choice, known: &[&'a str]) -> Vec<&'a str> {
    let languages: Vec<LanguageModel> = known.iter().map(|label| rig.fake.language_of(label)).collect();
    let known: Vec<(&str, &LanguageModel)> = known.iter().copied().zip(&languages).collect();
    let mut labels = choice.scored_by(&known);
    choice.assert_spans(&labels);
    choice.assert_greedy(&known);
    labels.dedup();
    labels
}

#[tokio::test]
async fn a_version_that_nobody_announced_is_told_from_its_first_token_on() {
    for strategy in ["cached-suffix", "fan-out"] {
        let rig = rig(strategy).await;
        let body = request(GENERATE, 0.0, 12);
        let (rollout, hang) = hung_in(&rig, &[GENERATE; 2], || send(&rig, GENERATE, &body)).await;
        rig.fake.set_weights("a");
        hang.release();
        let choice = choice(rollout).await;
        assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), [FIRST_WEIGHTS, "a"]);
        assert_eq!(choice.spans[0].2, 1, "the first verification was made under the new weights");
        assert_eq!((unannounced(&rig), stale(&rig)), (1, 0), "{strategy}");
    }
}

#[tokio::test]
async fn the_next_rollout_begins_under_the_version_that_was_found_out() {
    let rig = rig("cached-suffix").await;
    rig.fake.set_weights("a");
    for _ in 0..2 {
        let choice = choice(send(&rig, GENERATE, &request(GENERATE, 0.0, 12))).await;
        assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), ["a"]);
    }
    assert_eq!((unannounced(&rig), stale(&rig)), (1, 0));
}

#[tokio::test]
async fn a_decoding_stream_says_at_its_end_where_the_weights_changed() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let rig = Plan::new(config).drafters(told(|_| Ok(Proposal::default()))).start().await;
    let body = request(GENERATE, 0.0, 12);
    let (rollout, prefill) = hung_in(&rig, &[GENERATE], || send(&rig, GENERATE, &body)).await;
    let stream = rig.fake.hang_stream_after(GENERATE, 2);
    prefill.release();
    stream.reached().await;
    rig.fake.set_weights("a");
    stream.release();
    let choice = choice(rollout).await;
    assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), [FIRST_WEIGHTS, "a"]);
    assert_eq!(choice.spans[0].2, 10, "the third event of the stream, of four tokens, was sampled before it was held");
    assert_eq!((unannounced(&rig), stale(&rig)), (1, 0));
}

#[tokio::test]
async fn a_verification_under_an_older_version_than_the_newest_token_is_thrown_away() {
    let rig = rig("cached-suffix").await;
    let body = request(GENERATE, 0.0, 20);
    let (rollout, mut hang) = hung_in(&rig, &[GENERATE; 2], || send(&rig, GENERATE, &body)).await;
    // One replica of several may be late: the second verification is answered under the old weights.
    for weights in ["a", FIRST_WEIGHTS] {
        rig.fake.set_weights(weights);
        let next = rig.fake.hang_next(GENERATE);
        hang.release();
        next.reached().await;
        hang = next;
    }
    assert_eq!(stale(&rig), 1);
    rig.fake.set_weights("a");
    hang.release();
    let choice = choice(rollout).await;
    assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), [FIRST_WEIGHTS, "a"]);
    assert_eq!((unannounced(&rig), stale(&rig)), (3, 1), "new, old, new again");
}

#[tokio::test]
async fn a_server_that_went_back_for_good_is_believed_after_one_round() {
    let rig = rig("cached-suffix").await;
    let body = request(GENERATE, 0.0, 20);
    let (rollout, hang) = hung_in(&rig, &[GENERATE; 2], || send(&rig, GENERATE, &body)).await;
    rig.fake.set_weights("a");
    let next = rig.fake.hang_next(GENERATE);
    hang.release();
    next.reached().await;
    rig.fake.set_weights(FIRST_WEIGHTS);
    next.release();
    let choice = tokio::time::timeout(Duration::from_secs(20), choice(rollout)).await.expect("it goes on");
    assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), [FIRST_WEIGHTS, "a", FIRST_WEIGHTS]);
    assert_eq!((unannounced(&rig), stale(&rig)), (2, 1));
}

/// As in an evaluation of another policy between two steps of training.
#[tokio::test]
async fn a_trainer_may_go_back_to_a_version_in_the_middle_of_a_rollout() {
    let rig = rig("cached-suffix").await;
    let body = request(GENERATE, 0.0, 20);
    let (rollout, mut hang) = hung_in(&rig, &[GENERATE; 2], || send(&rig, GENERATE, &body)).await;
    for weights in ["a", FIRST_WEIGHTS] {
        let sent = ask(&rig, "/update_weights", &json!({"update_info": {"weights": weights}})).await;
        let named = ask(&rig, "/update_weight_version", &json!({"new_version": weights})).await;
        let next = rig.fake.hang_next(GENERATE);
        hang.release();
        assert!(sent.await.unwrap().0.is_success() && named.await.unwrap().0.is_success());
        next.reached().await;
        hang = next;
    }
    hang.release();
    let choice = tokio::time::timeout(Duration::from_secs(20), choice(rollout)).await.expect("it goes on");
    assert_eq!(versions(&rig, &choice, &[FIRST_WEIGHTS, "a"]), [FIRST_WEIGHTS, "a", FIRST_WEIGHTS]);
    assert_eq!((unannounced(&rig), stale(&rig)), (0, 0));
}

/// Rows by completions do not tell their version, draws by the generate route do.
#[tokio::test]
async fn a_draw_from_the_tail_tells_what_its_row_did_not() {
    let language = LanguageModel { sharpness: 0.5, ..endless() };
    let config = FakeConfig { language, max_logprobs: 2, ..FakeConfig::default() };
    let drafters = told(|_| Ok(Proposal { drafts: vec![Draft::certain(1)] }));
    let rig = Plan::new(config).strategy("prompt-logprobs").drafters(drafters).start().await;
    let body = request(GENERATE, 1.0, 20);
    let (rollout, draw) = hung_in(&rig, &[GENERATE, COMPLETIONS, GENERATE], || send(&rig, GENERATE, &body)).await;
    rig.fake.set_weights("a");
    draw.release();
    let choice = choice(rollout).await;
    assert_eq!(stale(&rig), 1, "the row of the first draw alone was the old weights'");
    assert_eq!(unannounced(&rig), 1);
    assert_eq!(choice.ids.len(), 20);
    let new = rig.fake.language_of("a");
    let labels = choice.scored_by(&[(FIRST_WEIGHTS, &rig.fake.language_of(FIRST_WEIGHTS)), ("a", &new)]);
    choice.assert_spans(&labels);
}

#[tokio::test]
async fn a_sample_for_a_lost_row_is_not_mixed_with_the_rows_of_another_version() {
    let config = FakeConfig { language: endless(), block_size: 4, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
    let body = request(GENERATE, 0.0, 20);
    for _ in 0..2 {
        choice(send(&rig, GENERATE, &body)).await;
    }
    // Until a sample comes after a verification that lost a row.
    for steps in 2..12 {
        let (rollout, hang) = hung_in(&rig, &[GENERATE; 12][..steps], || send(&rig, GENERATE, &body)).await;
        let last = rig.fake.requests().pop().unwrap().json();
        let is_sample = last["sampling_params"].get("prompt_logprobs").is_none_or(|rows| rows.is_null());
        if is_sample {
            rig.fake.set_weights("a");
        }
        hang.release();
        let choice = choice(rollout).await;
        if is_sample {
            assert!(rig.metric("sidedraft_verify_refused_total", "") > 0.5);
            let (old, new) = (rig.fake.language_of(FIRST_WEIGHTS), rig.fake.language_of("a"));
            choice.assert_spans(&choice.scored_by(&[(FIRST_WEIGHTS, &old), ("a", &new)]));
            return;
        }
    }
    panic!("no row was lost");
}
