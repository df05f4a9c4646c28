//! `/inference/v1/generate` in front of a server that lacks the route, or has it switched off: the sidecar serves it by the
//! completions route, as a server with the route would.

use http::StatusCode;
use serde_json::{Value, json};

use super::replies::{asking, ids_of, same_forwarded, streamed, with};
use super::rig::{GENERATE, Rig, endless};
use super::support::fake_vllm::{FakeConfig, FakeVllm, Version};

fn generate(fields: &Value) -> Value {
    asking(GENERATE, fields)
}

/// Servers without the route, or with it switched off.
async fn without_the_route() -> [Rig; 2] {
    let config = || FakeConfig { language: endless(), ..FakeConfig::default() };
    let off = Rig::drafting(FakeConfig { scale_out: false, ..config() }).await;
    // Chat apart, its replies differ from the newest release's on this route alone.
    let older = Rig::drafting(FakeConfig { version: Version(0, 11, 0), ..config() }).await;
    [off, older]
}

/// A reply without what the completions route does not tell: ranks below the listed tokens.
fn without_low_ranks(mut reply: Value, like: &Value) -> Value {
    let choices = reply["choices"].as_array_mut().unwrap();
    for (choice, like) in choices.iter_mut().zip(like["choices"].as_array().unwrap()) {
        let Some(Value::Array(content)) = choice.pointer_mut("/logprobs/content") else { continue };
        for (position, like) in content.iter_mut().zip(like["logprobs"]["content"].as_array().unwrap()) {
            let top = position["top_logprobs"].as_array_mut().unwrap();
            for (entry, like) in top.iter_mut().zip(like["top_logprobs"].as_array().unwrap()) {
                if like["rank"].is_null() {
                    entry["rank"] = Value::Null;
                }
            }
            if like["rank"].is_null() {
                position["rank"] = Value::Null;
            }
        }
    }
    reply
}

#[tokio::test]
async fn a_server_without_the_route_answers_as_one_that_has_it() {
    let reference = FakeVllm::start(FakeConfig { language: endless(), ..FakeConfig::default() }).await;
    for rig in without_the_route().await {
        for fields in [
            json!({}),
            json!({"logprobs": 0}),
            json!({"logprobs": 1}),
            json!({"logprobs": 20}),
            json!({"prompt_logprobs": 2, "logprobs": 2}),
            json!({"stop": ["e", "t"]}),
            json!({"stop_token_ids": [3, 4, 8]}),
            json!({"logit_bias": {"3": 6.0}, "min_tokens": 3, "bad_words": ["a"], "logprobs": 3}),
            json!({"temperature": 1, "top_k": 1, "n": 2, "logprobs": 1}),
        ] {
            let body = with(generate(&fields), &json!({"request_id": "mine", "return_token_ids": true}));
            rig.fake.reset_prefix_cache();
            reference.reset_prefix_cache();
            let direct = rig.sidecar.http.post(reference.url() + GENERATE).json(&body).send().await.unwrap();
            let mut direct: Value = direct.json().await.unwrap();
            let (status, through) = rig.through(GENERATE, &body).await;
            assert_eq!(status, StatusCode::OK, "{through:?}");
            let mut through: Value = serde_json::from_slice(&through).unwrap();
            (direct["created"], through["created"]) = (Value::Null, Value::Null);
            assert_eq!(through, without_low_ranks(direct, &through), "{fields}");
        }
        let body = with(generate(&json!({"logprobs": 1})), &json!({"request_id": "mine", "stream": true}));
        let ids = |chunks: Vec<Value>| chunks.iter().flat_map(ids_of).collect::<Vec<_>>();
        let direct = streamed(&rig, reference.url() + GENERATE, &body).await;
        let through = streamed(&rig, format!("{}{GENERATE}", rig.sidecar.url), &body).await;
        let last = |chunks: &[Value]| chunks.last().unwrap()["choices"][0]["weight_versions"].clone();
        assert_eq!((last(&through), ids(through)), (last(&direct), ids(direct)));
        assert!(rig.accepted() > 0.0 && rig.verified("cached_suffix") < 0.5);
        assert!(rig.fake.requests_to(GENERATE).is_empty());
    }
}

#[tokio::test]
async fn a_server_without_the_route_refuses_what_only_the_route_can_do() {
    for rig in without_the_route().await {
        let (status, _) =
            same_forwarded(&rig, GENERATE, &generate(&json!({"logit_bias": {"9": 150.0}})), "logit_bias").await;
        assert!(status.is_client_error());
    }
}
