//! What a chat request may ask for besides, and what it may not.

use serde_json::{Value, json};

use super::streams::events_of;
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::{CHAT, ok, refusal};

/// A chat whose last message is the assistant's, continued.
fn continued(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "well"}],
        "add_generation_prompt": false, "continue_final_message": true, "max_tokens": 3, "seed": 2, "ignore_eos": true});
    more.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
    body
}

fn content(reply: &Value) -> String {
    reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_echo_is_put_before_the_answer_and_brings_the_prompts_rows() {
    let fake = FakeVllm::start_default().await;
    let plain = ok(&fake, CHAT, continued(json!({}))).await;
    let echoed = ok(&fake, CHAT, continued(json!({"echo": true}))).await;
    assert_eq!(content(&echoed), "well".to_owned() + &content(&plain));
    assert!(plain["prompt_logprobs"].is_null());
    assert_eq!(echoed["prompt_logprobs"].as_array().unwrap().len(), echoed["usage"]["prompt_tokens"]);

    let chunks = events_of(&fake, CHAT, &continued(json!({"echo": true, "stream": true}))).await;
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "well"}));
    assert!(chunks[1]["choices"][0].get("token_ids").is_none());
}

#[tokio::test]
async fn a_message_of_another_role_is_not_echoed() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "seed": 1, "echo": true});
    assert!(!content(&ok(&fake, CHAT, body.clone()).await).starts_with("hi"));
    let mut unprompted = body;
    unprompted["add_generation_prompt"] = json!(false);
    let reply = ok(&fake, CHAT, unprompted).await;
    assert_eq!(reply["choices"][0]["message"]["role"], "user", "the role of the last message, then");
    assert!(content(&reply).starts_with("hi"));
}

#[tokio::test]
async fn the_newer_limit_wins() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, CHAT, continued(json!({"max_completion_tokens": 5}))).await;
    assert_eq!(reply["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn without_a_limit_the_context_is_one() {
    let fake = FakeVllm::start(FakeConfig { max_model_len: 40, ..FakeConfig::default() }).await;
    let reply = ok(&fake, CHAT, continued(json!({"max_tokens": null}))).await;
    assert_eq!(
        (&reply["usage"]["total_tokens"], &reply["choices"][0]["finish_reason"]),
        (&json!(40), &json!("length"))
    );
}

#[tokio::test]
async fn the_prompts_text_can_be_asked_for() {
    let fake = FakeVllm::start_default().await;
    let reply = ok(&fake, CHAT, continued(json!({"return_prompt_text": true}))).await;
    assert_eq!(reply["prompt_text"], "user hi\nassistant well");
}

#[tokio::test]
async fn refusals_are_in_vllms_words() {
    let fake = FakeVllm::start_default().await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for (more, message) in [
        (
            json!({"top_logprobs": 2}),
            "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
        ),
        (
            json!({"prompt_logprobs": 2, "stream": true}),
            "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)",
        ),
        (
            json!({"prompt_logprobs": -2}),
            "`prompt_logprobs` must be a positive value or -1. (parameter=prompt_logprobs, value=-2)",
        ),
        (
            json!({"stream_options": {"include_usage": true}}),
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
        ),
        (
            json!({"tools": tool}),
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
        ),
        (
            json!({"tools": tool, "tool_choice": "required"}),
            "tool_choice=\"required\" requires --tool-call-parser to be set",
        ),
        (
            json!({"tools": []}),
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. \
          (parameter=tools)",
        ),
        (json!({"tool_choice": "auto"}), "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"),
        (
            json!({"add_generation_prompt": true}),
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
        ),
        (
            json!({"max_completion_tokens": 5000}),
            "max_completion_tokens=5000 cannot be greater than max_model_len=4096. Please request fewer output tokens. \
          (parameter=max_completion_tokens, value=5000)",
        ),
        (
            json!({"allowed_token_ids": []}),
            "allowed_token_ids is not None and empty! (parameter=allowed_token_ids, value=[])",
        ),
        (
            json!({"cache_salt": ""}),
            "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)",
        ),
    ] {
        assert_eq!(refusal(&fake, CHAT, continued(more)).await, (400, message.to_owned()));
    }
    ok(&fake, CHAT, continued(json!({"tools": tool, "tool_choice": "none"}))).await;
}
