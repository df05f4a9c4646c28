//! Ids that `generation_config.json` adds to those that end a sequence, and that the tokenizer takes for ordinary tokens, end
//! a rollout all the same, also in the middle of a draft.

use serde_json::{Value, json};
use sidedraft::speculation::{Draft, Proposal};

use super::drafters::told;
use super::replies::{CHAT, ROUTES, asking, ids_of, same_reply, same_whole};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults, argmax};

/// Ends that are not special.
const ENDS: [u32; 3] = [5, 9, 17];

fn config() -> FakeConfig {
    let defaults = GenerationDefaults { plain_eos: ENDS.to_vec(), ..GenerationDefaults::default() };
    FakeConfig { language: endless(), defaults, ..FakeConfig::default() }
}

/// A drafter that says what the server will say, past every end.
async fn foreseeing(strategy: &str) -> Rig {
    let config = config();
    let language = config.language.clone();
    let drafters = told(move |request| {
        let mut context = request.context.to_vec();
        for _ in 0..request.length {
            let next = argmax(&language.logits(&context)) as u32;
            context.push(next);
        }
        let drafts = context[request.context.len()..].iter().map(|token| Draft::certain(*token)).collect();
        Ok(Proposal { drafts })
    });
    Plan::new(config).strategy(strategy).drafters(drafters).flags("--draft-tokens 8").start().await
}

fn prompt(route: &str, start: u32, fields: &Value) -> Value {
    let mut body = asking(route, fields);
    match route {
        COMPLETIONS => body["prompt"] = json!([start, 6]),
        GENERATE => body["token_ids"] = json!([start, 6]),
        // The language looks at the last two tokens, so they must not be the template's.
        _ => {
            let begun = format!("{}e", char::from(b'a' + start as u8));
            body["messages"] = json!([{"role": "assistant", "content": begun}]);
            (body["add_generation_prompt"], body["continue_final_message"]) = (json!(false), json!(true));
        }
    }
    body
}

#[tokio::test]
async fn they_end_a_rollout_wherever_they_stand_in_a_draft() {
    for strategy in STRATEGIES {
        let rig = foreseeing(strategy).await;
        for route in ROUTES {
            let mut places = Vec::new();
            for start in 0..14 {
                let answer = same_reply(&rig, route, &prompt(route, start, &json!({"max_tokens": 60}))).await;
                let ids = ids_of(&answer);
                let Some((last, before)) = ids.split_last() else { continue };
                assert!(!before.iter().any(|id| ENDS.contains(id)), "{ids:?}");
                if answer["choices"][0]["finish_reason"] == "stop" {
                    assert!(ENDS.contains(last));
                    assert_eq!(answer["choices"][0]["stop_reason"], *last);
                    // After the first token come rounds of eight drafts and a bonus.
                    places.push((ids.len() + 7) % 9);
                }
            }
            places.sort_unstable();
            places.dedup();
            assert!(places.iter().filter(|place| **place < 8).count() > 2, "{strategy} {route}: ends at {places:?}");
        }
    }
}

#[tokio::test]
async fn their_text_is_shown_where_they_are_no_end_or_are_wanted() {
    let rig = foreseeing("cached-suffix").await;
    let mut shown = 0;
    for start in 0..14 {
        for fields in [
            json!({"ignore_eos": true, "max_tokens": 40}),
            json!({"include_stop_str_in_output": true, "max_tokens": 60}),
            json!({"ignore_eos": true, "stop_token_ids": [9], "max_tokens": 40}),
            json!({"min_tokens": 12, "max_tokens": 40}),
        ] {
            for route in [COMPLETIONS, CHAT] {
                let answer = same_reply(&rig, route, &prompt(route, start, &fields)).await;
                let choice = &answer["choices"][0];
                let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap();
                shown += usize::from(text.contains("<|end"));
            }
        }
    }
    assert!(shown > 10, "{shown}");
}

#[tokio::test]
async fn they_are_barred_until_the_shortest_output() {
    for strategy in STRATEGIES {
        let rig = foreseeing(strategy).await;
        for start in 0..8 {
            for min_tokens in [3, 6, 11] {
                let fields = json!({"min_tokens": min_tokens, "max_tokens": 40});
                let answer = same_whole(&rig, COMPLETIONS, &prompt(COMPLETIONS, start, &fields)).await;
                assert!(ids_of(&answer)[..min_tokens].iter().all(|id| !ENDS.contains(id)));
            }
        }
    }
}
