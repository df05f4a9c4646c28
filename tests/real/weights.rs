//! A policy that is updated in the middle of a rollout: each token says which version scored it, and that version did.

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::policies::swap;
use crate::server::{complete_directly, model_dir, neural_flags, next_version, server};
use crate::support::harness::{Harness, success};

const PROMPT: &str = "<|im_start|>user\nTell me a long story about a lighthouse.<|im_end|>\n<|im_start|>assistant\n";

/// The log-probability of every token of `ids` but the first under the weights that the server has now.
async fn rescore(server: &str, ids: &[u32]) -> Vec<f64> {
    let body = json!({"prompt": ids, "max_tokens": 1, "prompt_logprobs": 0});
    let reply = complete_directly(server, &body).await;
    let rows = reply["choices"][0]["prompt_logprobs"].as_array().unwrap();
    rows[1..].iter().zip(&ids[1..]).map(|(row, id)| row[id.to_string()]["logprob"].as_f64().unwrap()).collect()
}

/// What the events of a streamed generate request amount to.
#[derive(Default)]
struct Streamed {
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    spans: Value,
}

impl Streamed {
    fn read(&mut self, event: &str) {
        let Some(data) = event.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { return };
        let choice = &serde_json::from_str::<Value>(data).unwrap()["choices"][0];
        for entry in choice["logprobs"]["content"].as_array().unwrap() {
            self.ids.push(u32::try_from(entry["token_id"].as_u64().unwrap()).unwrap());
            self.logprobs.push(entry["logprob"].as_f64().unwrap());
        }
        if !choice["weight_versions"].is_null() {
            self.spans = choice["weight_versions"].clone();
        }
    }
}

#[tokio::test]
async fn a_rollout_over_a_weight_update_says_which_version_scored_each_token() {
    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = server("float32");
    let sidecar = Harness::start(&server, &flags).await;
    let next = next_version();

    let tokenized = sidecar.post("/tokenize", &json!({"prompt": PROMPT, "add_special_tokens": false})).await;
    let prompt: Vec<u32> = serde_json::from_value(success(tokenized).await["tokens"].clone()).unwrap();
    let request = json!({
        "token_ids": prompt, "stream": true,
        "sampling_params": {"temperature": 1.0, "max_tokens": 64, "ignore_eos": true, "logprobs": 1}
    });
    let mut body = sidecar.post("/inference/v1/generate", &request).await.bytes_stream();
    let mut streamed = Streamed::default();
    let mut text = String::new();
    let mut swapped = None;
    while let Some(piece) = body.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        while let Some(end) = text.find("\n\n") {
            streamed.read(&text[..end]);
            text.drain(..end + 2);
        }
        if swapped.is_none() && streamed.ids.len() >= 16 {
            swapped = Some(streamed.ids.len());
            swap(&sidecar.http, &sidecar.url, next.path().to_str().unwrap(), "2").await;
        }
    }

    assert_eq!(streamed.ids.len(), 64);
    let spans = streamed.spans.as_array().unwrap();
    let span = |at: usize| {
        let edge = |name: &str| usize::try_from(spans[at][name].as_u64().unwrap()).unwrap();
        (spans[at]["version"].as_str().unwrap().to_owned(), edge("start"), edge("end"))
    };
    assert_eq!(spans.len(), 2, "{spans:?}");
    let ((first, start, border), (second, from, end)) = (span(0), span(1));
    assert_eq!((second.as_str(), start, from, end), ("2", 0, border, 64));
    assert!(border >= swapped.unwrap() && border < 64, "the border is at {border}");

    let whole: Vec<u32> = prompt.iter().chain(&streamed.ids).copied().collect();
    let new = rescore(&server, &whole).await.split_off(prompt.len() - 1);
    swap(&sidecar.http, &sidecar.url, &model_dir(), &first).await;
    let old = rescore(&server, &whole).await.split_off(prompt.len() - 1);
    for (at, reported) in streamed.logprobs.iter().enumerate() {
        let (own, other) = if at < border { (old[at], new[at]) } else { (new[at], old[at]) };
        assert!((reported - own).abs() < 2e-3, "token {at}: {reported}, but {own} under its version");
        if (own - other).abs() > 0.05 {
            assert!((reported - other).abs() > 0.04, "token {at} was scored by the other version");
        }
    }
    let told_apart = (0..64).filter(|at| (old[*at] - new[*at]).abs() > 0.05).count();
    assert!(told_apart > 20, "the versions differ on {told_apart} tokens only");
    assert_eq!(sidecar.metric("sidedraft_broken_turns_total", ""), 0.0);
}
