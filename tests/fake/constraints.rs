//! What bars or favours tokens is left to the server's own samples: greedy answers under it are the server's on every route,
//! however drafts are verified.

use serde_json::{Value, json};

use super::drafters::often_right;
use super::replies::{ROUTES, asking, ids_of, same_forwarded, same_refusal, same_reply, with};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FakeConfig, LanguageModel};

/// A server whose rollouts end early where nothing keeps them, behind a sidecar that verifies by `strategy`.
async fn rig(strategy: &str) -> Rig {
    let language = LanguageModel { eos_bias: 5.0, ..LanguageModel::default() };
    let config = FakeConfig { language, ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    Plan::new(config).strategy(strategy).drafters(drafters).flags("--draft-tokens 5").start().await
}

/// Every constraint that is matched, alone and with others.
fn constraints() -> Vec<Value> {
    vec![
        json!({"logit_bias": {"8": 6.0, "12": -100, "63": -3}}),
        json!({"logit_bias": {"4": 500, "8": 400}}),
        json!({"allowed_token_ids": [1, 4, 8, 15, 20, 33, 63], "ignore_eos": true}),
        json!({"bad_words": ["e", " t", "9"], "ignore_eos": true}),
        json!({"repetition_penalty": 1.7, "ignore_eos": true}),
        json!({"repetition_penalty": 0.6, "ignore_eos": true}),
        json!({"min_tokens": 7}),
        json!({"min_tokens": 4, "stop_token_ids": [1, 4, 8, 12, 30], "include_stop_str_in_output": true}),
        json!({"min_tokens": 5, "ignore_eos": true, "stop": ["a", "e", "t", " "]}),
        json!({"logit_bias": {"8": 4.0}, "min_tokens": 3, "repetition_penalty": 1.3, "logprobs_too": true}),
        json!({"allowed_token_ids": [1, 4, 8, 15, 63], "bad_words": ["d"], "repetition_penalty": 2.0, "min_tokens": 9}),
    ]
}

/// `fields` with log-probabilities as the route asks for them, where they are wanted.
fn fields_for(route: &str, mut fields: Value) -> Value {
    let wanted = fields.as_object_mut().unwrap().remove("logprobs_too").is_some();
    match (wanted, route) {
        (false, _) => fields,
        (true, COMPLETIONS | GENERATE) => with(fields, &json!({"logprobs": 3})),
        (true, _) => with(fields, &json!({"logprobs": true, "top_logprobs": 3})),
    }
}

async fn every_constraint_on_every_route(strategy: &str) {
    let rig = rig(strategy).await;
    let mut accepted = vec![0.0];
    for route in ROUTES {
        for fields in constraints() {
            let fields = with(json!({"max_tokens": 24}), &fields_for(route, fields));
            let matched = rig.verified("fan_out");
            same_reply(&rig, route, &asking(route, &fields)).await;
            assert!(rig.verified("fan_out") > matched, "{strategy} {route} {fields}: no sample decided");
        }
        accepted.push(rig.accepted());
    }
    assert!(accepted.windows(2).all(|pair| pair[1] > pair[0] + 20.0), "drafts are kept on every route: {accepted:?}");
}

#[tokio::test]
async fn answers_under_constraints_are_the_servers_beside_the_cached_suffix() {
    every_constraint_on_every_route(STRATEGIES[0]).await;
}

#[tokio::test]
async fn answers_under_constraints_are_the_servers_beside_prompt_logprobs() {
    every_constraint_on_every_route(STRATEGIES[1]).await;
}

#[tokio::test]
async fn answers_under_constraints_are_the_servers_by_samples_alone() {
    every_constraint_on_every_route(STRATEGIES[2]).await;
}

#[tokio::test]
async fn without_constraints_rows_decide() {
    let rig = rig("auto").await;
    for route in ROUTES {
        same_reply(&rig, route, &asking(route, &json!({"ignore_eos": true, "stop_token_ids": [60]}))).await;
    }
    assert!(rig.verified("cached_suffix") > 0.0 && rig.verified("fan_out") < 0.5);
}

/// The model would end at once; drafts are as eager as it is.
#[tokio::test]
async fn the_shortest_output_may_have_any_length() {
    for strategy in STRATEGIES {
        let rig = rig(strategy).await;
        for min_tokens in 0..=14 {
            let fields = json!({"min_tokens": min_tokens, "max_tokens": 24});
            for route in ROUTES {
                let answer = same_reply(&rig, route, &asking(route, &fields)).await;
                let said = ids_of(&answer).len();
                assert!(said > min_tokens || answer["choices"][0]["finish_reason"] == "length", "{said}");
            }
        }
    }
}

#[tokio::test]
async fn the_shortest_output_may_be_the_longest() {
    let rig = rig("auto").await;
    for route in ROUTES {
        for most in [1, 2, 5, 6, 7] {
            let fields = json!({"min_tokens": most, "max_tokens": most});
            let answer = same_reply(&rig, route, &asking(route, &fields)).await;
            assert_eq!(ids_of(&answer).len(), most);
        }
    }
}

/// From the border on rows tell the target again.
#[tokio::test]
async fn past_the_shortest_output_rows_decide() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).strategy("cached-suffix").drafters(drafters).start().await;
    same_reply(&rig, COMPLETIONS, &asking(COMPLETIONS, &json!({"min_tokens": 9, "max_tokens": 60}))).await;
    let (matched, rows) = (rig.verified("fan_out"), rig.verified("cached_suffix"));
    assert!(matched > 0.5 && matched < 20.0 && rows > matched, "{matched} by samples, {rows} by rows");
}

#[tokio::test]
async fn a_stop_string_counts_only_after_the_shortest_output() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).flags("--draft-tokens 6").start().await;
        for route in ROUTES {
            let said = ids_of(&same_reply(&rig, route, &asking(route, &json!({"max_tokens": 20}))).await);
            for at in [1, 3, 4] {
                let stop = rig.fake.codec().decode(&said[at..=at], true);
                if stop.is_empty() || stop.contains('\u{FFFD}') {
                    continue;
                }
                for min_tokens in [at, at + 1, at + 2, at + 4] {
                    let fields = json!({"stop": stop, "min_tokens": min_tokens, "max_tokens": 20});
                    let answer = same_reply(&rig, route, &asking(route, &fields)).await;
                    assert!(ids_of(&answer).len() > min_tokens);
                }
            }
        }
    }
}

/// Where the server looks for the beginning of a word, it looks at the output, most of which a verification has as prompt.
#[tokio::test]
async fn bad_words_of_several_tokens_are_forwarded() {
    let rig = rig("auto").await;
    for route in ROUTES {
        same_forwarded(&rig, route, &asking(route, &json!({"bad_words": ["ab"]})), "bad_words").await;
        same_forwarded(&rig, route, &asking(route, &json!({"bad_words": ["a", "the"]})), "bad_words").await;
    }
}

#[tokio::test]
async fn constraints_that_the_server_refuses_are_refused_in_its_words() {
    let rig = rig("auto").await;
    for route in ROUTES {
        for fields in [
            json!({"allowed_token_ids": []}),
            json!({"allowed_token_ids": [64]}),
            json!({"logit_bias": {"64": 1}}),
            json!({"logit_bias": {"a": 1}}),
            json!({"min_tokens": 15}),
            json!({"min_tokens": -1}),
            json!({"repetition_penalty": 0}),
            json!({"bad_words": [""]}),
        ] {
            same_refusal(&rig, route, &asking(route, &fields), 400).await;
        }
    }
}
