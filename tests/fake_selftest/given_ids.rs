//! Ids that a request has scored at positions of its prompt, as the V2 runner does since 0.31.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm, Frontend, Runner, Version};
use super::{GENERATE, ids, ok, refusal};

/// A request that scores `rows` from row `start` on.
fn scoring(prompt: &[u32], rows: &Value, start: usize, skip: Option<bool>) -> Value {
    let params = json!({"prompt_logprob_token_ids": rows, "prompt_logprob_start": start, "max_tokens": 1,
        "skip_reading_prefix_cache": skip});
    json!({"token_ids": prompt, "sampling_params": params})
}

/// The values of a reply's array of this shape.
fn values(reply: &Value, rows: usize, columns: usize) -> Vec<f32> {
    let bytes = STANDARD.decode(reply["prompt_token_id_logprobs"].as_str().unwrap()).unwrap();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    assert_eq!(&bytes[10..10 + header.len()], header.as_bytes());
    let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(length.is_multiple_of(64) && bytes[length - 1] == b'\n');
    bytes[length..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[tokio::test]
async fn a_row_scores_its_ids_as_the_next_prompt_token() {
    let fake = FakeVllm::start_default().await;
    let prompt = ids(6, 1);
    let reply = ok(&fake, GENERATE, scoring(&prompt, &json!([[3, 9], [4, -1], [7]]), 2, None)).await;
    let scores = values(&reply, 3, 2);
    for (at, id) in [(0, 3), (1, 9), (2, 4), (4, 7)] {
        let expected = fake.language().raw(&prompt[..3 + at / 2])[id].ln();
        assert!((f64::from(scores[at]) - expected).abs() < 1e-5, "{at}: {} for {expected}", scores[at]);
    }
    assert!(scores[3] == f32::NEG_INFINITY && scores[5] == f32::NEG_INFINITY, "padding");
}

#[tokio::test]
async fn a_row_whose_hidden_state_is_cached_takes_all_of_them_away() {
    let fake = FakeVllm::start_default().await;
    let prompt = ids(40, 1);
    let rows = |count: usize| json!(vec![[3]; count]);
    let given = |reply: Value| reply["prompt_token_id_logprobs"].is_string();
    assert!(given(ok(&fake, GENERATE, scoring(&prompt, &rows(24), 15, Some(false))).await), "nothing is cached yet");
    assert!(given(ok(&fake, GENERATE, scoring(&prompt, &rows(7), 32, Some(false))).await), "32 tokens are");
    assert!(!given(ok(&fake, GENERATE, scoring(&prompt, &rows(8), 31, Some(false))).await));
    assert!(given(ok(&fake, GENERATE, scoring(&prompt, &rows(8), 31, None)).await), "by default no cache is read");
}

#[tokio::test]
async fn what_cannot_be_scored_is_a_400_in_vllms_words() {
    let fake = FakeVllm::start_default().await;
    let prompt = ids(4, 1);
    for (rows, start, message) in [
        (json!([[1]]), 0, "prompt_logprob_token_ids has 1 rows, but the prompt has 3 scored rows"),
        (json!([[], []]), 1, "prompt_logprob_token_ids must be a non-empty integer array of shape"),
        (json!([[64]]), 2, "prompt_logprob_token_ids contain out-of-vocab token ids (-1 pads a row)."),
        (json!([vec![1; 21]]), 2, "Requested 21 token ids per row in prompt_logprob_token_ids"),
    ] {
        let (status, said) = refusal(&fake, GENERATE, scoring(&prompt, &rows, start, None)).await;
        assert!(status == 400 && said.starts_with(message), "{said}");
    }
    let mut streamed = scoring(&prompt, &json!([[1]]), 2, None);
    streamed["stream"] = json!(true);
    let (status, said) = refusal(&fake, GENERATE, streamed).await;
    assert_eq!((status, said.as_str()), (400, "prompt_logprob_token_ids are not available when stream=true."));
    let (_, said) =
        refusal(&fake, GENERATE, json!({"token_ids": prompt, "sampling_params": {"prompt_logprob_start": 1}})).await;
    assert!(said.starts_with("prompt_logprob_start requires prompt_logprob_token_ids."), "{said}");
}

#[tokio::test]
async fn other_servers_refuse_or_ignore_them() {
    let prompt = ids(4, 1);
    let v1 = FakeVllm::start(FakeConfig { runner: Runner::V1, ..FakeConfig::default() }).await;
    let (status, said) = refusal(&v1, GENERATE, scoring(&prompt, &json!([[1]]), 2, None)).await;
    assert!(status == 400 && said.starts_with("prompt_logprob_token_ids requires the V2 model runner"), "{said}");
    for config in [
        FakeConfig { version: Version::new(0, 30), ..FakeConfig::default() },
        FakeConfig { frontend: Frontend::Rust, ..FakeConfig::default() },
    ] {
        let fake = FakeVllm::start(config).await;
        let reply = ok(&fake, GENERATE, scoring(&prompt, &json!([[1], [2], [3], [4]]), 0, None)).await;
        assert!(reply["prompt_token_id_logprobs"].is_null());
    }
}
