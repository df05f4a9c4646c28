//! New weights, under a label of their own, in the middle of whatever runs.

use serde_json::{Value, json};

use super::support::fake_vllm::{FIRST_WEIGHTS, FakeVllm};
use super::{GENERATE, get, id_list, ok, post, tell};

/// The weights under which each token's logprob was computed, `None` where it is nobody's.
fn under(fake: &FakeVllm, reply: &Value, weights: &[&str]) -> Vec<Option<String>> {
    let mut context = vec![1, 2];
    let content = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let mut found = Vec::new();
    for entry in content {
        let id = u32::try_from(entry["token_id"].as_u64().unwrap()).unwrap();
        let said = entry["logprob"].as_f64().unwrap();
        let matching =
            |weights: &&&str| (fake.language_of(weights).raw(&context)[id as usize].ln() - said).abs() < 1e-5;
        let matches: Vec<&&str> = weights.iter().filter(matching).collect();
        assert!(matches.len() <= 1, "weights differ at every position");
        found.push(matches.first().map(|weights| (**weights).to_owned()));
        context.push(id);
    }
    assert_eq!(context[2..], id_list(&reply["choices"][0]["token_ids"]));
    found
}

fn six_tokens() -> Value {
    json!({"token_ids": [1, 2], "sampling_params": {"max_tokens": 6, "ignore_eos": true, "logprobs": 0}})
}

#[tokio::test]
async fn an_update_changes_weights_and_label_one_after_the_other() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(GENERATE, 2);
    let (reply, ()) = tokio::join!(ok(&fake, GENERATE, six_tokens()), async {
        hold.reached().await;
        tell(&fake, "/pause?mode=keep").await;
        ok(&fake, "/init_weight_transfer_engine", json!({"init_info": {}})).await;
        tell(&fake, "/start_weight_update").await;
        let updated = ok(&fake, "/update_weights", json!({"update_info": {"weights": 7}})).await;
        assert_eq!(updated, json!({"message": "Weights updated"}));
        assert_eq!(get(&fake, "/weight_info").await.1, r#"{"weight_version":"default"}"#);
        ok(&fake, "/finish_weight_update", json!({"weight_version": "step-7"})).await;
        assert_eq!(get(&fake, "/weight_info").await.1, r#"{"weight_version":"step-7"}"#);
        tell(&fake, "/resume").await;
        hold.release();
    });
    let spans = json!([{"version": FIRST_WEIGHTS, "start": 0, "end": 2}, {"version": "step-7", "start": 2, "end": 6}]);
    assert_eq!(reply["choices"][0]["weight_versions"], spans);
    let found = under(&fake, &reply, &[FIRST_WEIGHTS, "7", "8"]);
    let expected = [[FIRST_WEIGHTS; 2].as_slice(), &["7"; 4]].concat();
    assert_eq!(found, expected.into_iter().map(|weights| Some(weights.to_owned())).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_label_alone_changes_no_weights() {
    let fake = FakeVllm::start_default().await;
    let said = ok(&fake, "/update_weight_version", json!({"new_version": "9"})).await;
    assert_eq!(said, json!({"success": true, "new_version": "9"}));
    let reply = ok(&fake, GENERATE, six_tokens()).await;
    assert_eq!(reply["choices"][0]["weight_versions"], json!([{"version": "9", "start": 0, "end": 6}]));
    assert!(
        under(&fake, &reply, &[FIRST_WEIGHTS, "9"]).iter().all(|weights| weights.as_deref() == Some(FIRST_WEIGHTS))
    );
}

#[tokio::test]
async fn a_trainer_can_reload_weights_by_their_path() {
    let fake = FakeVllm::start_default().await;
    let reload = json!({"method": "reload_weights", "kwargs": {"weights_path": "3"}});
    assert_eq!(ok(&fake, "/collective_rpc", reload).await, json!({"results": [null]}));
    assert_eq!(ok(&fake, "/collective_rpc", json!({"method": "other"})).await, json!({"results": []}));
    let reply = ok(&fake, GENERATE, six_tokens()).await;
    assert!(under(&fake, &reply, &[FIRST_WEIGHTS, "3"]).iter().all(|weights| weights.as_deref() == Some("3")));
    assert_eq!(fake.weight_version(), FIRST_WEIGHTS);
    assert_eq!(post(&fake, "/collective_rpc", &json!({})).await.0, 400);
}

#[tokio::test]
async fn prompt_rows_are_those_of_the_weights_that_computed_the_prompt() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(GENERATE, 1);
    let mut body = six_tokens();
    body["sampling_params"]["prompt_logprobs"] = json!(0);
    let (reply, ()) = tokio::join!(ok(&fake, GENERATE, body), async {
        hold.reached().await;
        ok(&fake, "/update_weights", json!({"update_info": {"weights": 7}})).await;
        hold.release();
    });
    let expected = fake.language_of(FIRST_WEIGHTS).raw(&[1])[2].ln();
    assert!((reply["prompt_logprobs"][1]["2"]["logprob"].as_f64().unwrap() - expected).abs() < 1e-5);
}
