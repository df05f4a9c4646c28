//! Greedy chats through the sidecar are the server's own, byte for byte, however the prompt is made.

use serde_json::{Value, json};

use super::drafters::often_right;
use super::replies::{CHAT, asking, same_forwarded, same_reply, same_stream, same_whole, timeless, with};
use super::rig::{Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FakeConfig, GenerationDefaults, LanguageModel};

/// A server that renders chats, and one that only tokenizes them.
async fn rigs() -> [Rig; 2] {
    [rig(true).await, rig(false).await]
}

async fn rig(scale_out: bool) -> Rig {
    Rig::drafting(FakeConfig { language: endless(), scale_out, ..FakeConfig::default() }).await
}

fn chat(fields: &Value) -> Value {
    asking(CHAT, fields)
}

/// A chat whose last message is the assistant's own, to be continued.
fn continued(fields: &Value) -> Value {
    let messages = json!([{"role": "user", "content": "go on"}, {"role": "assistant", "content": "the cat"}]);
    let body = json!({"messages": messages, "add_generation_prompt": false, "continue_final_message": true});
    with(with(chat(&json!({})), &body), fields)
}

#[tokio::test]
async fn every_strategy_gives_the_servers_answer() {
    for (strategy, way) in STRATEGIES.into_iter().zip(["cached_suffix", "prompt_logprobs", "fan_out"]) {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        for fields in [json!({"max_tokens": 40}), json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 30})] {
            same_reply(&rig, CHAT, &chat(&fields)).await;
        }
        assert!(rig.verified(way) > 0.0 && rig.accepted() > 0.0);
    }
}

#[tokio::test]
async fn log_probabilities_are_the_servers_whatever_their_number() {
    for rig in rigs().await {
        for fields in [
            json!({"logprobs": false}),
            json!({"logprobs": true}),
            json!({"logprobs": true, "top_logprobs": 0}),
            json!({"logprobs": true, "top_logprobs": 1}),
            json!({"logprobs": true, "top_logprobs": 5}),
            json!({"logprobs": true, "top_logprobs": 20}),
            json!({"logprobs": true, "top_logprobs": 2, "return_tokens_as_token_ids": true}),
            json!({"logprobs": true, "top_logprobs": 2, "return_token_ids": false}),
            json!({"return_token_ids": null}),
        ] {
            same_reply(&rig, CHAT, &chat(&fields)).await;
        }
        for fields in [json!({"prompt_logprobs": 0}), json!({"prompt_logprobs": 3, "logprobs": true})] {
            same_whole(&rig, CHAT, &chat(&fields)).await;
        }
    }
}

#[tokio::test]
async fn fields_that_change_nothing_are_no_reason_to_forward() {
    let neutral = json!({"frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {},
        "min_tokens": 0, "seed": 3, "user": "me", "top_p": 0.5, "top_k": 3, "response_format": {"type": "text"},
        "bad_words": [], "cache_salt": "s", "length_penalty": 1.0, "echo": false, "include_reasoning": true,
        "parallel_tool_calls": true, "tool_choice": "none", "n": null, "stop": [], "add_special_tokens": false,
        "chat_template_kwargs": {"a": 1}, "return_prompt_text": false});
    same_reply(&rig(true).await, CHAT, &chat(&neutral)).await;
    // The tokenize route has no such field.
    let rig = rig(false).await;
    same_forwarded(&rig, CHAT, &chat(&neutral), "template").await;
    let mut known = neutral;
    known.as_object_mut().unwrap().remove("response_format");
    same_reply(&rig, CHAT, &chat(&known)).await;
}

#[tokio::test]
async fn a_final_message_is_continued_and_echoed() {
    for rig in rigs().await {
        same_reply(&rig, CHAT, &continued(&json!({"logprobs": true}))).await;
        let echoed = same_reply(&rig, CHAT, &continued(&json!({"echo": true, "logprobs": true}))).await;
        assert!(echoed["choices"][0]["message"]["content"].as_str().unwrap().starts_with("the cat"));
        assert!(echoed["prompt_logprobs"].is_array());
        same_whole(&rig, CHAT, &continued(&json!({"echo": true, "logprobs": true, "top_logprobs": 2}))).await;
        same_whole(&rig, CHAT, &continued(&json!({"echo": true, "prompt_logprobs": 1}))).await;
    }
}

/// The rows of the prompt that the echo asks for have no place in a stream, and the server does not mind.
#[tokio::test]
async fn an_echo_is_streamed_with_rivals_of_its_tokens() {
    for rig in rigs().await {
        same_stream(&rig, CHAT, &continued(&json!({"echo": true, "logprobs": true, "top_logprobs": 2}))).await;
    }
}

#[tokio::test]
async fn without_a_generation_prompt_the_last_role_goes_on() {
    for rig in rigs().await {
        for fields in [json!({}), json!({"echo": true})] {
            let body = with(chat(&json!({"add_generation_prompt": false})), &fields);
            let reply = same_reply(&rig, CHAT, &body).await;
            assert_eq!(reply["choices"][0]["message"]["role"], "user");
        }
        // The answer is the assistant's, the last message is not.
        let reply = same_reply(&rig, CHAT, &chat(&json!({"echo": true}))).await;
        assert!(!reply["choices"][0]["message"]["content"].as_str().unwrap().starts_with("tell me"));
    }
}

#[tokio::test]
async fn several_choices_are_each_the_servers() {
    for rig in rigs().await {
        // The likeliest token alone is no greedy sampling to the server, which has no several choices of that.
        let certain = json!({"temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0, "repetition_penalty": 1, "n": 3});
        for fields in [json!({}), json!({"logprobs": true, "top_logprobs": 2}), json!({"return_token_ids": false})] {
            same_reply(&rig, CHAT, &with(chat(&certain), &fields)).await;
        }
        same_reply(&rig, CHAT, &with(continued(&certain), &json!({"echo": true}))).await;
    }
}

#[tokio::test]
async fn an_end_of_sequence_ends_it() {
    for scale_out in [true, false] {
        let language = LanguageModel { eos_bias: 4.0, ..LanguageModel::default() };
        let rig = Rig::drafting(FakeConfig { language, scale_out, ..FakeConfig::default() }).await;
        let mut ends = 0;
        // The language looks at the last two tokens, so they must not be the template's.
        for begun in ["ab", "be", "sea", "dogs", "eight", "for me"] {
            let messages = json!({"messages": [{"role": "assistant", "content": begun}], "max_tokens": 30});
            let body = continued(&messages);
            let answer = same_reply(&rig, CHAT, &with(body.clone(), &json!({"logprobs": true}))).await;
            ends += usize::from(answer["choices"][0]["finish_reason"] == "stop");
            same_reply(&rig, CHAT, &with(body.clone(), &json!({"ignore_eos": true}))).await;
            let shown = json!({"include_stop_str_in_output": true, "skip_special_tokens": false});
            same_reply(&rig, CHAT, &with(body, &shown)).await;
        }
        assert!(ends > 2, "{ends}");
    }
}

#[tokio::test]
async fn stop_strings_and_stop_tokens_end_it() {
    for rig in rigs().await {
        let said = same_reply(&rig, CHAT, &chat(&json!({"max_tokens": 30}))).await["choices"][0].clone();
        let text: Vec<char> = said["message"]["content"].as_str().unwrap().chars().collect();
        for (from, to) in [(2, 3), (4, 7), (9, 13), (0, 2)] {
            let stop: String = text[from..to].iter().collect();
            for include in [false, true] {
                let fields = json!({"stop": [stop, "zzz"], "include_stop_str_in_output": include, "max_tokens": 30});
                let answer = same_reply(&rig, CHAT, &chat(&fields)).await;
                assert_eq!(answer["choices"][0]["stop_reason"], json!(stop));
            }
        }
        for at in [0, 3, 8] {
            let stop = &said["token_ids"][at];
            let answer = same_reply(&rig, CHAT, &chat(&json!({"stop_token_ids": [stop], "max_tokens": 30}))).await;
            assert_eq!(answer["choices"][0]["stop_reason"], *stop);
        }
    }
}

#[tokio::test]
async fn usage_is_told_as_the_server_tells_it() {
    let long = json!({"messages": [{"role": "user", "content": "a long story of fifty words ".repeat(4)}]});
    for config in [
        FakeConfig::default(),
        FakeConfig { scale_out: false, ..FakeConfig::default() },
        FakeConfig { prompt_tokens_details: false, ..FakeConfig::default() },
        FakeConfig { prefix_caching: false, ..FakeConfig::default() },
        FakeConfig { force_include_usage: true, ..FakeConfig::default() },
    ] {
        let rig = Rig::drafting(FakeConfig { language: endless(), ..config }).await;
        same_reply(&rig, CHAT, &chat(&long)).await;
        for options in [
            json!({"include_usage": true}),
            json!({"include_usage": true, "continuous_usage_stats": true}),
            json!({"include_usage": false, "continuous_usage_stats": true}),
            json!({}),
        ] {
            same_stream(&rig, CHAT, &with(chat(&long), &json!({"stream_options": options}))).await;
        }
    }
}

#[tokio::test]
async fn what_was_cached_before_is_not_said_to_be_created() {
    let rig = rig(true).await;
    let body = chat(&json!({"messages": [{"role": "user", "content": "x".repeat(70)}], "request_id": "mine"}));
    rig.direct(CHAT, &body).await;
    let (_, direct) = rig.direct(CHAT, &body).await;
    let (_, through) = rig.through(CHAT, &body).await;
    assert_eq!(timeless(&through), timeless(&direct));
    let details = serde_json::from_slice::<Value>(&through).unwrap()["usage"]["prompt_tokens_details"].clone();
    assert_eq!((&details["cached_tokens"], &details["created_cache_tokens"]), (&json!(80), &json!(0)));
}

#[tokio::test]
async fn what_is_not_plain_text_in_and_out_is_forwarded() {
    for rig in rigs().await {
        let text =
            json!([{"role": "user", "content": [{"type": "text", "text": "tell"}, {"type": "text", "text": "me"}]}]);
        same_reply(&rig, CHAT, &chat(&json!({ "messages": text }))).await;
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]);
        same_forwarded(&rig, CHAT, &chat(&json!({ "messages": image })), "multimodal").await;
        let tool = json!([{"type": "function", "function": {"name": "f"}}]);
        same_forwarded(&rig, CHAT, &chat(&json!({ "tools": tool })), "tools").await;
        let answer = same_forwarded(&rig, CHAT, &chat(&json!({"tools": tool, "tool_choice": "none"})), "tools").await;
        assert_eq!(answer.0, 200);
        same_forwarded(&rig, CHAT, &chat(&json!({"return_prompt_text": true})), "return_prompt_text").await;
        same_forwarded(&rig, CHAT, &chat(&json!({"chat_template": "{{ a }}"})), "refused").await;
    }
}

#[tokio::test]
async fn a_server_with_a_reasoning_parser_answers_itself() {
    for scale_out in [true, false] {
        let config = FakeConfig { reasoning_parser: true, scale_out, language: endless(), ..FakeConfig::default() };
        let rig = Rig::drafting(config).await;
        same_forwarded(&rig, CHAT, &chat(&json!({})), "chat_parser").await;
        same_forwarded(&rig, CHAT, &chat(&json!({"include_reasoning": false})), "chat_parser").await;
    }
}

#[tokio::test]
async fn several_choices_of_a_greedy_default_are_refused_in_the_servers_words() {
    for (scale_out, temperature) in [(true, Some(0.0)), (false, Some(0.0)), (true, None), (false, None)] {
        let defaults = GenerationDefaults { temperature, ..GenerationDefaults::default() };
        let rig = Rig::drafting(FakeConfig { defaults, scale_out, ..FakeConfig::default() }).await;
        let fields = json!({"n": 2, "temperature": temperature.map_or(json!(0), |_| Value::Null)});
        let (status, direct) = rig.direct(CHAT, &chat(&fields)).await;
        assert_eq!((status, direct), rig.through(CHAT, &chat(&fields)).await);
        assert_eq!(status, 400);
    }
}
