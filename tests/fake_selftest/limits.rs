use http::StatusCode;
use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, GenerationDefaults, LanguageModel};
use super::{COMPLETIONS, GENERATE, id_list, ids, ok, post, refusal};

#[tokio::test]
async fn more_logprobs_than_allowed_are_a_400_in_vllms_words() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": [1, 2], "prompt_logprobs": 25});
    let message =
        "Requested prompt logprobs of 25, which is greater than max allowed: 20 (parameter=prompt_logprobs, value=25)";
    assert_eq!(refusal(&fake, COMPLETIONS, body).await, (400, message.to_owned()));
    let body = json!({"token_ids": [1, 2], "sampling_params": {"logprobs": 21}});
    let message =
        "Requested sample logprobs of 21, which is greater than max allowed: 20 (parameter=logprobs, value=21)";
    assert_eq!(refusal(&fake, GENERATE, body).await, (400, message.to_owned()));
}

#[tokio::test]
async fn without_a_limit_a_row_can_be_the_whole_vocabulary() {
    let fake = FakeVllm::start(FakeConfig { max_logprobs: -1, ..FakeConfig::default() }).await;
    let body = json!({"token_ids": [1, 2], "sampling_params": {"prompt_logprobs": -1, "max_tokens": 1}});
    let reply = ok(&fake, GENERATE, body).await;
    let row = reply["prompt_logprobs"][1].as_object().unwrap();
    let sum: f64 = row.values().map(|entry| entry["logprob"].as_f64().unwrap().exp()).sum();
    assert_eq!(row.len(), 64);
    assert!((sum - 1.0).abs() < 1e-5);
}

#[tokio::test]
async fn values_out_of_range_are_a_400() {
    let fake = FakeVllm::start_default().await;
    for (field, value) in [
        ("temperature", json!(-1.0)),
        ("temperature", json!(2.5)),
        ("top_p", json!(0.0)),
        ("top_p", json!(1.5)),
        ("min_p", json!(2)),
        ("top_k", json!(-2)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("many")),
        ("max_tokens", json!(5000)),
        ("min_tokens", json!(17)),
        ("stop", json!([""])),
        ("logit_bias", json!({"900": 1.0})),
        ("n", Value::Null),
        ("prompt", json!("")),
        ("prompt", json!([])),
        ("prompt", json!([1000])),
        ("stream_options", json!({"include_usage": true})),
    ] {
        let mut body = json!({"prompt": [1, 2]});
        body[field] = value.clone();
        let (status, reply) = post(&fake, COMPLETIONS, &body).await;
        assert_eq!((status, reply["error"]["code"].as_u64()), (StatusCode::BAD_REQUEST, Some(400)), "{field}: {value}");
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_unknown_models_are_a_404() {
    let fake = FakeVllm::start_default().await;
    ok(&fake, COMPLETIONS, json!({"prompt": [1], "no_such_field": {"a": 1}})).await;
    let (status, message) = refusal(&fake, COMPLETIONS, json!({"prompt": [1], "model": "other"})).await;
    assert_eq!((status, &*message), (404, "The model `other` does not exist. Valid aliases: fake-model."));
}

#[tokio::test]
async fn the_context_is_a_limit_for_the_prompt_and_an_end_for_the_output() {
    let fake = FakeVllm::start(FakeConfig { max_model_len: 32, ..FakeConfig::default() }).await;
    let body = json!({"prompt": ids(30, 1), "max_tokens": 10, "ignore_eos": true});
    let reply = ok(&fake, COMPLETIONS, body).await;
    assert_eq!(
        (&reply["usage"]["completion_tokens"], &reply["choices"][0]["finish_reason"]),
        (&json!(2), &json!("length"))
    );
    for len in [32, 33] {
        assert_eq!(refusal(&fake, COMPLETIONS, json!({"prompt": ids(len, 1)})).await.0, 400);
        let body = json!({"token_ids": ids(len, 1), "sampling_params": {"max_tokens": 1}});
        assert_eq!(refusal(&fake, GENERATE, body).await.0, 400);
    }
}

#[tokio::test]
async fn generation_config_speaks_for_completions_alone_but_ends_every_sequence() {
    let defaults = GenerationDefaults { temperature: Some(0.0), extra_eos: vec![9], ..GenerationDefaults::default() };
    let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, language, ..FakeConfig::default() }).await;

    let greedy = json!({"prompt": [1, 2], "max_tokens": 8, "logit_bias": {"9": -100}, "return_token_ids": true});
    let first = ok(&fake, COMPLETIONS, greedy.clone()).await;
    assert_eq!(first["choices"], ok(&fake, COMPLETIONS, greedy).await["choices"]);
    let params = json!({"max_tokens": 8, "logit_bias": {"9": -100}});
    let sampled = json!({"token_ids": [1, 2], "sampling_params": params});
    assert_ne!(
        ok(&fake, GENERATE, sampled.clone()).await["choices"][0]["token_ids"],
        ok(&fake, GENERATE, sampled).await["choices"][0]["token_ids"]
    );

    let forced = json!({"max_tokens": 8, "allowed_token_ids": [9]});
    let reply = ok(&fake, GENERATE, json!({"token_ids": [1, 2], "sampling_params": forced})).await;
    let choice = &reply["choices"][0];
    assert_eq!((&choice["token_ids"], &choice["stop_reason"]), (&json!([9]), &json!(9)));
}

#[tokio::test]
async fn render_tells_the_servers_defaults() {
    let defaults = GenerationDefaults { temperature: Some(0.6), top_k: Some(20), ..GenerationDefaults::default() };
    let fake = FakeVllm::start(FakeConfig { defaults, ..FakeConfig::default() }).await;
    let reply = ok(&fake, "/v1/completions/render", json!({"prompt": [1]})).await;
    let params = &reply[0]["sampling_params"];
    assert_eq!((&params["temperature"], &params["top_k"], &params["top_p"]), (&json!(0.6), &json!(20), &json!(1.0)));
}

#[tokio::test]
async fn each_prompt_of_a_list_gets_what_its_own_length_leaves() {
    let fake = FakeVllm::start(FakeConfig { max_model_len: 32, ..FakeConfig::default() }).await;
    let body = json!({"prompt": [[1, 2], ids(29, 1)], "max_tokens": 20, "ignore_eos": true, "return_token_ids": true});
    let reply = ok(&fake, COMPLETIONS, body).await;
    let said = |choice: usize| id_list(&reply["choices"][choice]["token_ids"]).len();
    assert_eq!((said(0), said(1)), (20, 3));
}
