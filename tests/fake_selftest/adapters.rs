//! LoRA adapters: other weights under another model's name.

use serde_json::{Value, json};

use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, FakeVllm, LanguageModel, argmax};
use super::{CHAT, COMPLETIONS, GENERATE, get, id_list, ids, ok, post, refusal};

const LOAD: &str = "/v1/load_lora_adapter";
const UNLOAD: &str = "/v1/unload_lora_adapter";

async fn load(fake: &FakeVllm, fields: Value) -> (u16, String) {
    let reply = reqwest::Client::new().post(fake.url() + LOAD).json(&fields).send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

/// Greedy tokens of `model` after `prompt`, and what `language` would say.
async fn greedy(fake: &FakeVllm, model: &str, language: &LanguageModel) -> (Vec<u32>, Vec<u32>) {
    let params = json!({"max_tokens": 5, "temperature": 0, "ignore_eos": true});
    let reply = ok(fake, GENERATE, json!({"model": model, "token_ids": [1, 2], "sampling_params": params})).await;
    assert_eq!(reply["model"], model);
    let mut context = vec![1, 2];
    (0..5).for_each(|_| context.push(u32::try_from(argmax(&language.logits(&context))).unwrap()));
    (id_list(&reply["choices"][0]["token_ids"]), context.split_off(2))
}

#[tokio::test]
async fn requests_that_name_an_adapter_are_computed_with_its_weights() {
    let fake = FakeVllm::start_default().await;
    let loaded = load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await;
    assert_eq!(loaded, (200, "Success: LoRA adapter 'a' added successfully.".to_owned()));
    let (said, expected) = greedy(&fake, "a", &fake.language_of(5)).await;
    assert_eq!(said, expected);
    let (said, expected) = greedy(&fake, "fake-model", &fake.language_of(FIRST_WEIGHTS)).await;
    assert_eq!(said, expected);
    for (path, body) in [
        (COMPLETIONS, json!({"model": "a", "prompt": [1]})),
        (CHAT, json!({"model": "a", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2})),
    ] {
        assert_eq!(ok(&fake, path, body).await["model"], "a");
    }
    ok(&fake, "/tokenize", json!({"model": "a", "prompt": "a"})).await;
}

#[tokio::test]
async fn an_adapter_is_listed_with_its_parent() {
    let fake = FakeVllm::start_default().await;
    load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await;
    let models: Value = serde_json::from_str(&get(&fake, "/v1/models").await.1).unwrap();
    let card = &models["data"][1];
    assert_eq!((&card["id"], &card["root"], &card["parent"]), (&json!("a"), &json!("5"), &json!("fake-model")));
    assert!(card["max_model_len"].is_null());
}

#[tokio::test]
async fn a_name_is_loaded_once_unless_in_place() {
    let fake = FakeVllm::start_default().await;
    load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await;
    let (status, message) = refusal(&fake, LOAD, json!({"lora_name": "a", "lora_path": "6"})).await;
    let expected = "The lora adapter 'a' has already been loaded. If you want to load the adapter in place, set \
                    'load_inplace' to True.";
    assert_eq!((status, &*message), (400, expected));
    load(&fake, json!({"lora_name": "a", "lora_path": "6", "load_inplace": true})).await;
    let (said, expected) = greedy(&fake, "a", &fake.language_of(6)).await;
    assert_eq!(said, expected);
}

#[tokio::test]
async fn an_unloaded_adapter_is_unknown() {
    let fake = FakeVllm::start_default().await;
    load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await;
    let reply = reqwest::Client::new().post(fake.url() + UNLOAD).json(&json!({"lora_name": "a"})).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), "Success: LoRA adapter 'a' removed successfully.");
    assert_eq!(post(&fake, COMPLETIONS, &json!({"model": "a", "prompt": [1]})).await.0, 404);
    let refused = refusal(&fake, UNLOAD, json!({"lora_name": "a"})).await;
    assert_eq!(refused, (404, "The lora adapter 'a' cannot be found.".to_owned()));
}

#[tokio::test]
async fn an_adapters_prefix_is_its_own() {
    let fake = FakeVllm::start_default().await;
    load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await;
    let cached = async |model: &str| {
        let body = json!({"model": model, "prompt": ids(40, 1), "max_tokens": 1});
        ok(&fake, COMPLETIONS, body).await["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached("fake-model").await, 0);
    assert_eq!((cached("a").await, cached("a").await), (0, 32));
}

#[tokio::test]
async fn a_server_may_not_load_any() {
    let fake = FakeVllm::start(FakeConfig { runtime_lora: false, ..FakeConfig::default() }).await;
    assert_eq!(load(&fake, json!({"lora_name": "a", "lora_path": "5"})).await.0, 404);
}
