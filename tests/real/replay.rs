//! Rollouts of one policy, replayed after the server's weights were swapped for the next one's: they become samples of the
//! new policy, and a rule that resamples wrongly after a rejection is noticed.

use std::sync::Arc;

use sidedraft::speculation::{AcceptanceRule, Lossless};

use crate::policies::{policies, restoring, swap};
use crate::sampled::{PLAIN, judge, samples, tokenize};
use crate::server::{model_dir, server};
use crate::support::harness::Harness;
use crate::support::nobody::Nobody;
use crate::support::planted::NothingSubtracted;
use crate::support::stats::GTest;

/// Policies that are two steps of training apart.
const OLD: u32 = 1;
const NEW: u32 = 3;
/// A question, and the beginning of an answer that neither would give: about how to go on from there training has changed
/// their mind more than about anything that they were trained on.
const QUESTION: &str = "Liam is 10 years old and Ava is 3 times as old. How old will Ava be in 15 years?";
const ANSWER: &str = "The answer is hard. First, 7 * 3 = 21 and then we subtract 5. So 21 - 5 = 16.";

fn prompt() -> String {
    format!("<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}")
}

/// Samples `count` rollouts of the old policy, swaps the weights, and samples as many of the new one, each of which replays
/// one of the old. The fit of those to the new policy.
async fn replayed(rule: Arc<dyn AcceptanceRule>, count: usize) -> GTest {
    let (tokenizer, policies) = (model_dir(), policies());
    let flags = ["--replay", "--tokenizer", &tokenizer];
    let change = |setup: sidedraft::setup::Setup| setup.with_rule(rule).with_drafters(Arc::new(Nobody));
    let sidecar = Harness::start_with(&server("float32"), &flags, change).await;
    sidecar.sidecar.ready().await;
    let prompt = tokenize(&prompt()).await;
    let mut outputs = Vec::new();
    for policy in [OLD, NEW] {
        swap(&sidecar.http, &sidecar.url, &format!("{policies}/policy-{policy}"), &policy.to_string()).await;
        outputs = samples(&sidecar, &prompt, PLAIN, count).await;
    }
    assert_eq!(sidecar.metric("sidedraft_replays_total", "\"used\""), outputs.len() as f64);
    let fit = judge(&prompt, PLAIN, &outputs).await;
    let accepted = sidecar.metric("sidedraft_accepted_tokens_total", "\"replay\"");
    let drafted = sidecar.metric("sidedraft_drafted_tokens_total", "\"replay\"");
    eprintln!(
        "{} replayed, {accepted} of {drafted} old tokens accepted: G {:.1} on {} degrees of freedom, p = {:.2e}",
        outputs.len(),
        fit.g,
        fit.dof,
        fit.p_value
    );
    assert!(accepted > 0.0 && accepted < drafted, "{accepted} of {drafted} old tokens accepted tries nothing");
    assert!(fit.dof >= 6, "a test of {} degrees of freedom says little", fit.dof);
    fit
}

/// One retry with fresh samples: a true rule fails a test at 0.001 once in a thousand runs.
async fn assert_exact(count: usize) {
    let first = replayed(Arc::new(Lossless), count).await;
    if first.p_value <= 0.001 {
        let second = replayed(Arc::new(Lossless), count).await;
        assert!(second.p_value > 0.001, "{first:?}, then {second:?}");
    }
}

/// After a rejection SPEC-RL goes on with a sample of the policy, as if the draft had never been.
async fn assert_noticed(count: usize) {
    let fit = replayed(Arc::new(NothingSubtracted), count).await;
    assert!(fit.p_value < 0.001, "a wrong rule passed with p = {}", fit.p_value);
}

#[tokio::test]
async fn rollouts_replayed_after_a_swap_of_the_weights_are_the_new_policys() {
    restoring(assert_exact(600)).await;
}

#[tokio::test]
async fn a_replay_that_samples_from_the_new_policy_after_a_rejection_is_noticed() {
    restoring(assert_noticed(600)).await;
}

#[tokio::test]
#[ignore = "takes some minutes: make exactness"]
async fn long_form_replayed() {
    restoring(async {
        assert_exact(3000).await;
        assert_noticed(3000).await;
    })
    .await;
}
