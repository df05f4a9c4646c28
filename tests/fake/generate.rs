//! Greedy `/inference/v1/generate` requests through the sidecar are answered with the server's own bytes.

use http::StatusCode;
use serde_json::{Value, json};

use super::drafters::often_right;
use super::replies::{asking, ids_of, same_forwarded, same_reply, same_stream, same_whole, with};
use super::rig::{GENERATE, Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults, LanguageModel};

async fn rig() -> Rig {
    Rig::drafting(FakeConfig { language: endless(), ..FakeConfig::default() }).await
}

fn generate(fields: &Value) -> Value {
    asking(GENERATE, fields)
}

#[tokio::test]
async fn every_strategy_gives_the_servers_answer() {
    for (strategy, way) in STRATEGIES.into_iter().zip(["cached_suffix", "prompt_logprobs", "fan_out"]) {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        for fields in [json!({"max_tokens": 40}), json!({"logprobs": 3, "max_tokens": 30})] {
            same_reply(&rig, GENERATE, &generate(&fields)).await;
        }
        assert!(rig.verified(way) > 0.0 && rig.accepted() > 0.0);
    }
}

#[tokio::test]
async fn ranks_and_rivals_are_the_servers_whatever_their_number() {
    let rig = rig().await;
    for logprobs in [0, 1, 2, 5, 19, 20] {
        for fields in [json!({}), json!({"flat_logprobs": true}), json!({"detokenize": false})] {
            let answer = same_reply(&rig, GENERATE, &generate(&with(json!({"logprobs": logprobs}), &fields))).await;
            assert_eq!(answer["choices"][0]["logprobs"]["content"][3]["rank"], 1);
        }
    }
    // Tokens that are not the likeliest: a bias leaves the ranks as they were.
    let biased = json!({"logit_bias": {"3": 9.0, "11": 8.5}, "max_tokens": 30});
    for logprobs in [0, 1, 4] {
        let answer = same_reply(&rig, GENERATE, &generate(&with(biased.clone(), &json!({"logprobs": logprobs})))).await;
        let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
        assert!(content.iter().any(|position| position["rank"].as_u64().unwrap() > 5));
    }
}

#[tokio::test]
async fn rows_of_the_prompt_are_the_servers() {
    let rig = rig().await;
    for prompt_logprobs in [0, 1, 5, 20] {
        for detokenize in [true, false] {
            let fields = json!({"prompt_logprobs": prompt_logprobs, "detokenize": detokenize, "logprobs": 1});
            let answer = same_whole(&rig, GENERATE, &generate(&fields)).await;
            let row = answer["prompt_logprobs"][1].as_object().unwrap().values().next().unwrap().clone();
            assert_eq!(row["decoded_token"].is_string(), detokenize);
            same_stream(&rig, GENERATE, &generate(&fields)).await;
        }
    }
}

#[tokio::test]
async fn fields_that_change_nothing_are_no_reason_to_forward() {
    let neutral = json!({"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "top_p": 1.0,
        "top_k": 0, "min_p": 0, "seed": 5, "stop": [], "stop_token_ids": [], "bad_words": [], "include_stop_str_in_output": false,
        "ignore_eos": false, "min_tokens": 0, "logprobs": null, "skip_special_tokens": true, "skip_clone": true,
        "output_kind": 0, "logit_bias": null, "allowed_token_ids": null, "extra_args": null, "routed_experts_prompt_start": 0});
    let around = json!({"token_offsets": null, "features": null, "cache_salt": "s", "priority": 0, "output_mode": "tokens",
        "stream": false, "stream_options": null, "kv_transfer_params": null, "reasoning_ended": null});
    same_reply(&rig().await, GENERATE, &with(generate(&neutral), &around)).await;
}

#[tokio::test]
async fn stop_strings_and_stop_tokens_end_it() {
    let rig = rig().await;
    let said = ids_of(&same_reply(&rig, GENERATE, &generate(&json!({"max_tokens": 30}))).await);
    let text: Vec<char> = rig.fake.codec().decode(&said, true).chars().collect();
    let mut stopped = 0;
    for (from, to) in [(2, 3), (4, 7), (9, 13), (0, 2)] {
        let stop: String = text[from..to].iter().collect();
        for include in [false, true] {
            let fields = json!({"stop": [stop, "zzz"], "include_stop_str_in_output": include, "max_tokens": 30});
            let answer = same_reply(&rig, GENERATE, &generate(&fields)).await;
            stopped += usize::from(answer["choices"][0]["stop_reason"] == json!(stop));
        }
    }
    assert!(stopped >= 4, "{stopped}");
    for at in [0, 3, 8] {
        let answer =
            same_reply(&rig, GENERATE, &generate(&json!({"stop_token_ids": [said[at]], "max_tokens": 30}))).await;
        assert_eq!(answer["choices"][0]["stop_reason"], said[at]);
    }
}

#[tokio::test]
async fn an_end_of_sequence_ends_it() {
    let language = LanguageModel { eos_bias: 4.0, ..LanguageModel::default() };
    let rig = Rig::drafting(FakeConfig { language, ..FakeConfig::default() }).await;
    let mut ends = 0;
    for prompt in 0..10 {
        let prompt = json!({"token_ids": [prompt, 6]});
        for fields in [json!({"max_tokens": 30, "logprobs": 1}), json!({"max_tokens": 30, "ignore_eos": true})] {
            let answer = same_reply(&rig, GENERATE, &with(generate(&fields), &prompt)).await;
            ends += usize::from(answer["choices"][0]["finish_reason"] == "stop");
        }
    }
    assert!(ends > 4, "{ends}");
}

#[tokio::test]
async fn several_choices_are_each_the_servers_and_the_prompt_is_told_once() {
    let rig = rig().await;
    let certain = json!({"temperature": 1, "top_k": 1, "n": 3, "logprobs": 2});
    same_reply(&rig, GENERATE, &generate(&certain)).await;
    let body = with(generate(&certain), &json!({"return_token_ids": true}));
    assert_eq!(same_reply(&rig, GENERATE, &body).await["prompt_token_ids"], json!([5, 6, 7]));
}

#[tokio::test]
async fn the_generation_config_is_of_no_meaning_to_this_route() {
    let defaults = GenerationDefaults {
        temperature: Some(0.0),
        top_k: Some(2),
        repetition_penalty: Some(1.5),
        ..GenerationDefaults::default()
    };
    let rig = Rig::drafting(FakeConfig { defaults, language: endless(), ..FakeConfig::default() }).await;
    same_reply(&rig, GENERATE, &generate(&json!({}))).await;
    assert!(rig.verified("cached_suffix") > 0.0 && rig.verified("fan_out") < 0.5);
    same_reply(&rig, GENERATE, &generate(&json!({"temperature": 1, "top_k": 1, "n": 2}))).await;
}

#[tokio::test]
async fn usage_is_told_as_the_server_tells_it() {
    let long = json!({"token_ids": (0..70).collect::<Vec<u32>>().iter().map(|id| id % 40).collect::<Vec<_>>()});
    for config in [
        FakeConfig::default(),
        FakeConfig { prompt_tokens_details: false, ..FakeConfig::default() },
        FakeConfig { force_include_usage: true, ..FakeConfig::default() },
    ] {
        let rig = Rig::drafting(FakeConfig { language: endless(), ..config }).await;
        let body = with(generate(&json!({})), &long);
        same_reply(&rig, GENERATE, &body).await;
        for options in [
            json!({"include_usage": true}),
            json!({"include_usage": true, "continuous_usage_stats": true}),
            json!({"continuous_usage_stats": true}),
        ] {
            same_stream(&rig, GENERATE, &with(body.clone(), &json!({"stream_options": options}))).await;
        }
    }
}

#[tokio::test]
async fn tokens_bear_the_version_that_was_announced() {
    let rig = rig().await;
    let (status, _) = rig.through("/update_weight_version", &json!({"new_version": "7"})).await;
    assert_eq!(status, StatusCode::OK);
    let answer = same_reply(&rig, GENERATE, &generate(&json!({"logprobs": 0}))).await;
    assert_eq!(answer["choices"][0]["weight_versions"], json!([{"version": "7", "start": 0, "end": 14}]));
}

#[tokio::test]
async fn tokens_bear_the_version_that_scored_them_where_it_changes_unannounced() {
    for stream in [false, true] {
        let rig = rig().await;
        let first = rig.fake.hang_next(GENERATE);
        let update = async {
            first.reached().await;
            let verification = rig.fake.hang_next(GENERATE);
            first.release();
            verification.reached().await;
            rig.fake.set_weights("2");
            verification.release();
        };
        let body = with(generate(&json!({"max_tokens": 40, "logprobs": 0})), &json!({ "stream": stream }));
        let (reply, ()) = tokio::join!(rig.sidecar.post(GENERATE, &body), update);
        let text = reply.text().await.unwrap();
        let chunks: Vec<Value> = text
            .split("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap_or(event))
            .filter(|event| !event.is_empty() && *event != "[DONE]")
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        let choices = || chunks.iter().map(|chunk| &chunk["choices"][0]);
        let spans = choices().next_back().unwrap()["weight_versions"].as_array().unwrap().clone();
        assert_eq!(spans.iter().map(|span| &span["version"]).collect::<Vec<_>>(), ["default", "2"]);
        let content: Vec<&Value> =
            choices().flat_map(|choice| choice["logprobs"]["content"].as_array().unwrap()).collect();
        let mut context = vec![5, 6, 7];
        for span in &spans {
            let language = rig.fake.language_of(span["version"].as_str().unwrap());
            for at in span["start"].as_u64().unwrap()..span["end"].as_u64().unwrap() {
                let position = content[at as usize];
                let token = position["token_id"].as_u64().unwrap();
                let logprob = language.raw(&context)[token as usize].ln();
                assert!((position["logprob"].as_f64().unwrap() - logprob).abs() < 1e-5, "token {at} of {spans:?}");
                context.push(token as u32);
            }
        }
        assert_eq!(context.len(), 43);
    }
}

#[tokio::test]
async fn a_bias_is_not_clamped() {
    let rig = rig().await;
    let fields = json!({"logit_bias": {"9": 150.0, "11": 130.0}, "logprobs": 1});
    let answer = same_reply(&rig, GENERATE, &generate(&fields)).await;
    assert_eq!(ids_of(&answer), [9; 14]);
    assert!(rig.verified("fan_out") > 0.0);
}

#[tokio::test]
async fn what_is_not_speculated_is_the_servers_to_answer() {
    let rig = rig().await;
    for (fields, reason) in [
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"bad_words": ["ab"]}), "bad_words"),
        (json!({"seed": 4, "temperature": 1}), "seed"),
        (json!({"skip_reading_prefix_cache": true}), "skip_reading_prefix_cache"),
        (json!({"stop": ["a"], "detokenize": false}), "invalid"),
        (json!({"temperature": 0, "n": 2}), "invalid"),
        (json!({"logprobs": 21}), "invalid"),
        (json!({"stop_token_ids": [999]}), "refused"),
        (json!({"allowed_token_ids": [999]}), "refused"),
        (json!({"frobnicate": 1}), "unknown_field"),
    ] {
        same_forwarded(&rig, GENERATE, &generate(&fields), reason).await;
    }
    for (fields, reason) in [
        (json!({"token_ids": []}), "invalid"),
        (json!({"token_ids": [999]}), "refused"),
        (json!({"model": "another"}), "refused"),
        (json!({"output_mode": "text"}), "output_mode"),
        (json!({"cache_salt": ""}), "invalid"),
        (json!({"new": 1}), "unknown_field"),
    ] {
        same_forwarded(&rig, GENERATE, &with(generate(&json!({})), &fields), reason).await;
    }
}
