use http::StatusCode;
use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, Frontend, Version};
use super::{COMPLETIONS, GENERATE, get, ok, post};

fn score() -> Value {
    json!({"token_ids": [1, 2, 3], "sampling_params": {"prompt_logprobs": 1, "max_tokens": 1, "logprobs": 1}})
}

async fn of(version: Version) -> FakeVllm {
    FakeVllm::start(FakeConfig { version, scale_out: false, ..FakeConfig::default() }).await
}

#[tokio::test]
async fn generate_came_with_0_11_1_and_went_behind_a_flag_with_0_30() {
    for (version, status) in [
        (Version::new(0, 8), 404),
        (Version(0, 11, 0), 404),
        (Version(0, 11, 1), 200),
        (Version::new(0, 29), 200),
        (Version::new(0, 30), 403),
        (Version::CURRENT, 403),
    ] {
        let fake = of(version).await;
        assert_eq!(post(&fake, GENERATE, &score()).await.0.as_u16(), status, "{version}");
        assert_eq!(post(&fake, COMPLETIONS, &json!({"prompt": [1]})).await.0, StatusCode::OK);
        assert_eq!(get(&fake, "/version").await.1, format!(r#"{{"version":"{version}"}}"#));
    }
}

#[tokio::test]
async fn the_403_names_the_flag() {
    let (_, reply) = post(&of(Version::CURRENT).await, GENERATE, &score()).await;
    assert_eq!(reply["error"]["type"], "PermissionDeniedError");
    assert!(reply["error"]["message"].as_str().unwrap().contains("--enable-scale-out"));
}

#[tokio::test]
async fn an_unknown_route_is_the_frameworks_own_404() {
    let (status, reply) = post(&FakeVllm::start_default().await, "/v1/nothing", &json!({})).await;
    assert_eq!((status, reply), (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})));
}

#[tokio::test]
async fn the_rust_frontend_takes_one_prompt_and_one_choice_and_counts_nothing() {
    let fake = FakeVllm::start(FakeConfig { frontend: Frontend::Rust, ..FakeConfig::default() }).await;
    assert!(get(&fake, "/version").await.1.contains("rust_frontend_version"));
    for body in [json!({"prompt": [[1], [2]]}), json!({"prompt": [1], "n": 2})] {
        assert_eq!(post(&fake, COMPLETIONS, &body).await.0, StatusCode::BAD_REQUEST);
    }
    let reply = ok(&fake, GENERATE, score()).await;
    assert!(reply.get("usage").is_none() && reply["choices"][0].get("weight_versions").is_none());
    assert_eq!(reply["prompt_logprobs"][1]["2"]["decoded_token"], "token_id:2");
    assert!(reply["choices"][0]["logprobs"]["content"][0]["token"].as_str().unwrap().starts_with("token_id:"));
}

#[tokio::test]
async fn a_key_guards_the_api_and_nothing_else() {
    let fake = FakeVllm::start(FakeConfig { api_key: Some("secret".into()), ..FakeConfig::default() }).await;
    let (status, reply) = post(&fake, COMPLETIONS, &json!({"prompt": [1]})).await;
    assert_eq!((status, reply), (StatusCode::UNAUTHORIZED, json!({"error": "Unauthorized"})));
    assert_eq!(get(&fake, "/health").await.0, StatusCode::OK);
    let request = reqwest::Client::new().post(fake.url() + COMPLETIONS).bearer_auth("secret");
    assert_eq!(request.json(&json!({"prompt": [1]})).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_server_describes_itself() {
    let fake = FakeVllm::start_default().await;
    assert_eq!(get(&fake, "/health").await, (StatusCode::OK, String::new()));
    let models: Value = serde_json::from_str(&get(&fake, "/v1/models").await.1).unwrap();
    assert_eq!(models["data"][0]["id"], "fake-model");
    assert_eq!(models["data"][0]["max_model_len"], 4096);
    ok(&fake, COMPLETIONS, json!({"prompt": [1]})).await;
    let metrics = get(&fake, "/metrics").await.1;
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"fake-model\"} 0.0",
        "finished_reason=\"length\"} 1.0",
        ",block_size=\"16\"",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn every_request_is_on_record() {
    let fake = FakeVllm::start_default().await;
    let client = reqwest::Client::new();
    let request = client.post(fake.url() + COMPLETIONS + "?a=b").header("x-request-id", "mine");
    let reply: Value = request.json(&json!({"prompt": [1], "extra": 7})).send().await.unwrap().json().await.unwrap();
    assert_eq!(reply["id"], "cmpl-mine");
    let record = &fake.requests_to(COMPLETIONS)[0];
    assert_eq!((record.query.as_deref(), &record.headers["x-request-id"]), (Some("a=b"), &"mine".parse().unwrap()));
    assert_eq!(record.json()["extra"], 7);
}
