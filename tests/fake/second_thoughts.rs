//! A rollout that decodes for want of a draft looks for one again.

use std::time::Duration;

use serde_json::json;
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::told_for_free;
use super::exactness::ids;
use super::rig::{Plan, endless};
use super::support::fake_vllm::{FakeConfig, argmax};

#[tokio::test]
async fn a_drafter_that_had_no_idea_at_first_is_asked_again() {
    const PROMPT: [u32; 3] = [5, 6, 7];
    let language = endless();
    let model = language.clone();
    // Like n-grams, which know nothing until a text begins to repeat itself; from then on it is right.
    let late = told_for_free(move |request| {
        let mut context = request.context.to_vec();
        let length = if context.len() < PROMPT.len() + 12 { 0 } else { request.length };
        let drafts = (0..length).map(|_| {
            let token = argmax(&model.raw(&context)) as u32;
            context.push(token);
            Draft::certain(token)
        });
        Ok(Proposal { drafts: drafts.collect() })
    });
    let config = FakeConfig { language, token_latency: Duration::from_millis(4), ..FakeConfig::default() };
    let rig = Plan::new(config).drafters(late).flags("--speculate auto").start().await;
    let body = json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 200, "return_token_ids": true});
    let direct = ids(&rig.complete_directly(&body).await);
    assert_eq!(ids(&rig.complete(&body).await), direct);
    let accepted = rig.metric("vllm:spec_decode_num_accepted_tokens_total", "");
    assert!(accepted > 40.0, "{accepted} of 200 tokens");
}
