//! `/tokenize` and render: the prompt that a chat would have.

use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, GenerationDefaults};
use super::{CHAT, id_list, ok, post};

const RENDER: &str = "/v1/chat/completions/render";

fn messages() -> Value {
    json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}])
}

async fn spelled(fake: &FakeVllm, body: Value) -> String {
    let reply = ok(fake, "/tokenize", body).await;
    assert_eq!(reply["count"], reply["tokens"].as_array().unwrap().len());
    fake.codec().decode(&id_list(&reply["tokens"]), false)
}

#[tokio::test]
async fn the_template_is_a_line_for_each_message() {
    let fake = FakeVllm::start_default().await;
    let prompted = spelled(&fake, json!({"messages": messages(), "chat_template_kwargs": {"x": 1}})).await;
    assert_eq!(prompted, "system be brief\nuser hi\nassistant ");
    let plain = json!({"messages": messages(), "add_generation_prompt": false});
    assert_eq!(spelled(&fake, plain).await, "system be brief\nuser hi\n");
    let open = json!({"messages": messages(), "add_generation_prompt": false, "continue_final_message": true});
    assert_eq!(spelled(&fake, open).await, "system be brief\nuser hi");
    let tools = json!([{"type": "function", "function": {"name": "find"}}]);
    let with_tools = spelled(&fake, json!({"messages": messages(), "tools": tools})).await;
    assert_eq!(with_tools, format!("tools find\n{prompted}"));
}

#[tokio::test]
async fn options_that_exclude_each_other_are_a_400() {
    let fake = FakeVllm::start_default().await;
    for path in ["/tokenize", CHAT, RENDER] {
        for said in [json!({"add_generation_prompt": true}), json!({})] {
            let mut body = said;
            body["messages"] = messages();
            body["continue_final_message"] = json!(true);
            assert_eq!(post(&fake, path, &body).await.0, 400, "{path}");
        }
    }
}

#[tokio::test]
async fn render_gives_the_ids_and_the_resolved_parameters() {
    let defaults = GenerationDefaults { temperature: Some(0.6), top_k: Some(20), ..GenerationDefaults::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, max_model_len: 100, ..FakeConfig::default() }).await;
    let reply = ok(&fake, RENDER, json!({"messages": messages(), "logit_bias": {"3": 500}, "cache_salt": "s"})).await;
    assert_eq!(reply["token_ids"], ok(&fake, "/tokenize", json!({"messages": messages()})).await["tokens"]);
    let params = &reply["sampling_params"];
    assert_eq!((&params["temperature"], &params["top_k"]), (&json!(0.6), &json!(20)));
    assert_eq!(params["max_tokens"], 100 - reply["token_ids"].as_array().unwrap().len());
    assert_eq!((&params["logit_bias"], &reply["cache_salt"]), (&json!({"3": 100.0}), &json!("s")));
}

#[tokio::test]
async fn what_was_rendered_can_be_generated() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"messages": messages(), "max_tokens": 4, "seed": 3, "return_token_ids": true});
    let said = ok(&fake, CHAT, body.clone()).await;
    let rendered = ok(&fake, RENDER, body).await;
    let generated = ok(&fake, "/inference/v1/generate", rendered).await;
    assert_eq!(generated["choices"][0]["token_ids"], said["choices"][0]["token_ids"]);
}

#[tokio::test]
async fn a_server_without_the_flag_says_which_it_is() {
    let fake = FakeVllm::start(FakeConfig { scale_out: false, ..FakeConfig::default() }).await;
    let (status, reply) = post(&fake, RENDER, &json!({"messages": messages()})).await;
    assert_eq!((status.as_u16(), &reply["error"]["type"]), (403, &json!("PermissionDeniedError")));
}
