use http::StatusCode;
use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, Garbage, LogprobsMode, Runner};
use super::{COMPLETIONS, GENERATE, ids, ok, post};

async fn fake(runner: Runner, garbage: Garbage) -> FakeVllm {
    FakeVllm::start(FakeConfig { runner, garbage, ..FakeConfig::default() }).await
}

/// A verification of all of `ids` by way A.
fn verify(ids: &[u32]) -> Value {
    let params =
        json!({"prompt_logprobs": 3, "max_tokens": 1, "skip_reading_prefix_cache": false, "detokenize": false});
    json!({"token_ids": ids, "sampling_params": params})
}

fn cached(reply: &Value) -> u64 {
    reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

/// The row must be the closed form's: the prompt token and the three highest.
fn assert_row(fake: &FakeVllm, row: &Value, prompt: &[u32], position: usize) {
    let raw = fake.language().raw(&prompt[..position]);
    let row = row.as_object().unwrap();
    assert!((3..=4).contains(&row.len()));
    assert!(row.contains_key(&prompt[position].to_string()), "row {position} lacks its own token");
    for (id, entry) in row {
        let expected = raw[id.parse::<usize>().unwrap()].ln();
        assert!((entry["logprob"].as_f64().unwrap() - expected).abs() < 1e-5, "row {position}, token {id}");
    }
}

#[tokio::test]
async fn a_hit_is_whole_blocks_and_never_the_whole_prompt() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(48, 1);
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&prompt)).await), 0);
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&prompt)).await), 32, "the last block holds the last token");
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&prompt[..47])).await), 32);
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&[&prompt[..], &[1]].concat())).await), 48);
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&prompt[1..])).await), 0, "a block is known with all before it");
}

#[tokio::test]
async fn generated_tokens_are_cached_but_for_the_last() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(10, 1);
    let body = json!({"prompt": prompt, "max_tokens": 22, "ignore_eos": true, "return_token_ids": true});
    let reply = ok(&fake, COMPLETIONS, body).await;
    let output: Vec<u32> = serde_json::from_value(reply["choices"][0]["token_ids"].clone()).unwrap();
    let whole = [&prompt[..], &output, &[1]].concat();
    assert_eq!(cached(&ok(&fake, GENERATE, verify(&whole)).await), 16, "token 32 was sampled, not computed");
}

#[tokio::test]
async fn a_salt_keeps_caches_apart() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(40, 1);
    let salted = |salt: &str| {
        let mut body = verify(&prompt);
        body["cache_salt"] = json!(salt);
        body
    };
    assert_eq!(cached(&ok(&fake, GENERATE, salted("a")).await), 0);
    assert_eq!(cached(&ok(&fake, GENERATE, salted("b")).await), 0);
    assert_eq!(cached(&ok(&fake, GENERATE, salted("a")).await), 32);
}

#[tokio::test]
async fn v2_returns_only_the_rows_it_computed() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(40, 1);
    ok(&fake, GENERATE, verify(&prompt)).await;
    let reply = ok(&fake, GENERATE, verify(&prompt)).await;
    let rows = reply["prompt_logprobs"].as_array().unwrap();
    assert_eq!((cached(&reply), rows.len()), (32, 40 - 32));
    assert!(rows[0].is_null());
    for (row, position) in rows[1..].iter().zip(33..) {
        assert_row(&fake, row, &prompt, position);
    }
}

#[tokio::test]
async fn v1_returns_every_row_and_those_of_the_cache_are_garbage() {
    let fake = fake(Runner::V1, Garbage::Zeros).await;
    let prompt = ids(40, 1);
    let fresh = ok(&fake, GENERATE, verify(&prompt)).await;
    for position in 1..40 {
        assert_row(&fake, &fresh["prompt_logprobs"][position], &prompt, position);
    }
    let reply = ok(&fake, GENERATE, verify(&prompt)).await;
    let rows = reply["prompt_logprobs"].as_array().unwrap();
    assert_eq!((cached(&reply), rows.len()), (32, 40));
    for row in &rows[1..=32] {
        assert_eq!(row["0"]["logprob"], 0.0);
    }
    for (row, position) in rows[33..].iter().zip(33..) {
        assert_row(&fake, row, &prompt, position);
    }
}

#[tokio::test]
async fn stale_rows_are_those_of_another_request() {
    let fake = fake(Runner::V1, Garbage::Stale).await;
    let (prompt, other) = (ids(40, 1), ids(40, 2));
    ok(&fake, GENERATE, verify(&prompt)).await;
    let others = ok(&fake, GENERATE, verify(&other)).await;
    let reply = ok(&fake, GENERATE, verify(&prompt)).await;
    assert_eq!(reply["prompt_logprobs"][20], others["prompt_logprobs"][20]);
    assert_row(&fake, &reply["prompt_logprobs"][33], &prompt, 33);
}

#[tokio::test]
async fn a_row_that_is_not_a_number_is_a_400() {
    let fake = fake(Runner::V1, Garbage::Nan).await;
    let prompt = ids(40, 1);
    ok(&fake, GENERATE, verify(&prompt)).await;
    let (status, reply) = post(&fake, GENERATE, &verify(&prompt)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(reply["error"]["message"], "Out of range float values are not JSON compliant");
}

#[tokio::test]
async fn rows_are_complete_where_the_cache_is_not_read() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(40, 1);
    ok(&fake, GENERATE, verify(&prompt)).await;
    let asked = json!({"prompt": prompt, "prompt_logprobs": 3, "max_tokens": 1});
    let by_completions = ok(&fake, COMPLETIONS, asked).await;
    let mut silent = verify(&prompt);
    silent["sampling_params"]["skip_reading_prefix_cache"] = Value::Null;
    let by_default = ok(&fake, GENERATE, silent).await;
    for (reply, rows) in [
        (&by_completions, &by_completions["choices"][0]["prompt_logprobs"]),
        (&by_default, &by_default["prompt_logprobs"]),
    ] {
        assert_eq!((cached(reply), rows.as_array().unwrap().len()), (0, 40));
        assert_row(&fake, &rows[5], &prompt, 5);
    }
}

#[tokio::test]
async fn cached_tokens_are_told_only_by_a_server_that_was_asked_to() {
    let fake = FakeVllm::start(FakeConfig { prompt_tokens_details: false, ..FakeConfig::default() }).await;
    let reply = ok(&fake, GENERATE, verify(&ids(40, 1))).await;
    assert!(reply["usage"]["prompt_tokens_details"].is_null());
    assert_eq!(reply["usage"]["prompt_tokens"], 40);
}

#[tokio::test]
async fn a_fan_out_reads_the_cache_of_its_own_first_prompt() {
    let fake = fake(Runner::V2, Garbage::Zeros).await;
    let prompt = ids(40, 1);
    let prompts: Vec<&[u32]> = (35..=40).map(|len| &prompt[..len]).collect();
    let reply = ok(&fake, COMPLETIONS, json!({"prompt": prompts, "max_tokens": 1, "logprobs": 2})).await;
    assert_eq!(reply["choices"].as_array().unwrap().len(), 6);
    assert_eq!(cached(&reply), 32, "usage speaks of the last prompt");
}

#[tokio::test]
async fn prompt_rows_are_never_processed() {
    let mode = LogprobsMode::ProcessedLogprobs;
    let fake = FakeVllm::start(FakeConfig { logprobs_mode: mode, ..FakeConfig::default() }).await;
    let prompt = ids(5, 1);
    let params = json!({"prompt_logprobs": 3, "max_tokens": 1, "temperature": 0.5, "logprobs": 1});
    let reply = ok(&fake, GENERATE, json!({"token_ids": prompt, "sampling_params": params})).await;
    assert_row(&fake, &reply["prompt_logprobs"][3], &prompt, 3);
    let sampled = &reply["choices"][0]["logprobs"]["content"][0];
    let id = sampled["token_id"].as_u64().unwrap() as usize;
    let raw = fake.language().raw(&prompt)[id].ln();
    assert!((sampled["logprob"].as_f64().unwrap() - raw).abs() > 1e-3, "temperature 0.5 shows in the sampled token");
}
