use futures_util::StreamExt;
use serde_json::{Value, json};

use super::support::fake_vllm::{FIRST_WEIGHTS, FakeConfig, FakeVllm, Version};
use super::{COMPLETIONS, GENERATE, ok};

fn four_tokens() -> Value {
    json!({"token_ids": [1, 2], "sampling_params": {"max_tokens": 4, "ignore_eos": true}})
}

#[tokio::test]
async fn replies_name_the_weights_that_sampled_them() {
    let fake = FakeVllm::start_default().await;
    let spans = |reply: &Value| reply["choices"][0]["weight_versions"].clone();
    let reply = ok(&fake, GENERATE, four_tokens()).await;
    assert_eq!(spans(&reply), json!([{"version": FIRST_WEIGHTS, "start": 0, "end": 4}]));
    fake.set_weights("step-1");
    let reply = ok(&fake, GENERATE, four_tokens()).await;
    assert_eq!(spans(&reply), json!([{"version": "step-1", "start": 0, "end": 4}]));

    let old = FakeVllm::start(FakeConfig { version: Version::new(0, 27), ..FakeConfig::default() }).await;
    assert!(ok(&old, GENERATE, four_tokens()).await["choices"][0].get("weight_versions").is_none());
}

#[tokio::test]
async fn new_weights_are_another_distribution_not_far_from_the_old() {
    let fake = FakeVllm::start_default().await;
    let before = fake.language().raw(&[1, 2]);
    fake.set_weights("step-1");
    let after = fake.language().raw(&[1, 2]);
    let distance: f64 = before.iter().zip(&after).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
    assert!(distance > 0.01 && distance < 0.7, "total variation {distance}");
}

#[tokio::test]
async fn a_trainer_can_swap_weights_over_http() {
    let fake = FakeVllm::start_default().await;
    for (path, body) in [
        ("/pause", json!({})),
        ("/collective_rpc", json!({"method": "reload_weights", "kwargs": {"weights_path": 3}})),
        ("/update_weight_version", json!({"new_version": "3"})),
        ("/reset_prefix_cache", json!({})),
        ("/resume", json!({})),
    ] {
        ok(&fake, path, body).await;
    }
    assert_eq!((*fake.language()).clone(), fake.language_of(3));
    assert_eq!(fake.weight_version(), "3");
}

#[tokio::test]
async fn weights_can_change_in_the_middle_of_a_stream() {
    let fake = FakeVllm::start_default().await;
    let hang = fake.hang_stream_after(COMPLETIONS, 2);
    let body = json!({"prompt": [1, 2], "max_tokens": 5, "temperature": 0, "ignore_eos": true, "stream": true,
        "return_token_ids": true});
    let reply = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&body).send().await.unwrap();
    let (text, ()) = tokio::join!(
        async {
            reply
                .bytes_stream()
                .map(|part| String::from_utf8_lossy(&part.unwrap()).into_owned())
                .collect::<String>()
                .await
        },
        async {
            hang.reached().await;
            fake.set_weights("step-1");
            hang.release();
        }
    );
    let chunks = text.split_terminator("\n\n").filter_map(|event| serde_json::from_str::<Value>(&event[6..]).ok());
    let said: Vec<u32> =
        chunks.map(|chunk| serde_json::from_value(chunk["choices"][0]["token_ids"][0].clone()).unwrap()).collect();
    // The third token was sampled before its chunk was held; the weights after it are the new ones.
    let after = [&[1, 2], &said[..4]].concat();
    assert_eq!(said[4] as usize, super::support::fake_vllm::argmax(&fake.language().logits(&after)));
}
