//! At temperature 0 the sidecar's answers are the server's own, token for token.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::prompts::prompts;
use crate::server::{complete_directly, ids, neural_flags, ngram_flags, server};
use crate::support::harness::Harness;

const TOKENS: usize = 128;

fn request(prompt: &str, salt: &str) -> Value {
    // A salt of its own for each run: otherwise one run's tokens would lie in the prefix cache of the next.
    json!({
        "prompt": prompt, "max_tokens": TOKENS, "temperature": 0.0, "logprobs": 1, "return_token_ids": true,
        "cache_salt": salt
    })
}

async fn answers_directly() -> Vec<Value> {
    let server = server("float32");
    let all = prompts();
    join_all(
        all.iter()
            .map(|prompt| async { complete_directly(&server, &request(prompt, "direct")).await["choices"][0].take() }),
    )
    .await
}

fn assert_same(prompt: &str, direct: &Value, proxied: &Value) {
    assert_eq!(ids(direct), ids(proxied), "token ids after {prompt:?}");
    for field in ["text", "finish_reason", "stop_reason"] {
        assert_eq!(direct[field], proxied[field], "{field} after {prompt:?}");
    }
    assert_eq!(direct["logprobs"]["tokens"], proxied["logprobs"]["tokens"], "token texts after {prompt:?}");
    assert_eq!(direct["logprobs"]["text_offset"], proxied["logprobs"]["text_offset"], "offsets after {prompt:?}");
    let logprobs = |choice: &Value| choice["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    for (position, (a, b)) in logprobs(direct).iter().zip(&logprobs(proxied)).enumerate() {
        let difference = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
        assert!(difference < 1e-3, "log-probability of token {position} after {prompt:?}: {a} and {b}");
    }
}

/// Both drafters through one strategy, all prompts at once.
async fn answers_are_the_servers_own(strategy: &str) {
    let direct = answers_directly().await;
    for (drafter, mut flags) in [("neural", neural_flags()), ("ngram", ngram_flags())] {
        flags.extend(["--strategy", strategy, "--draft-tokens", "6"].map(str::to_owned));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let sidecar = Harness::start(&server("float32"), &flags).await;
        let salt = format!("{strategy} {drafter}");
        let all = prompts();
        let proxied = join_all(
            all.iter().map(|prompt| async { sidecar.complete(&request(prompt, &salt)).await["choices"][0].take() }),
        )
        .await;
        for ((prompt, direct), proxied) in all.iter().zip(&direct).zip(&proxied) {
            assert_same(prompt, direct, proxied);
        }
        let label = format!("strategy=\"{}\"", strategy.replace('-', "_"));
        assert!(sidecar.metric("sidedraft_verify_calls_total", &label) >= 24.0, "{drafter} hardly drafted");
        assert!(sidecar.metric("vllm:spec_decode_num_accepted_tokens_total", "") >= 24.0);
        assert_eq!(sidecar.metric("sidedraft_requests_total", "outcome=\"forwarded\""), 0.0);
        assert_eq!(sidecar.metric("sidedraft_verify_refused_total", ""), 0.0);
    }
}

#[tokio::test]
async fn greedy_answers_verified_by_cached_suffix_are_the_servers_own() {
    answers_are_the_servers_own("cached-suffix").await;
}

#[tokio::test]
async fn greedy_answers_verified_by_prompt_logprobs_are_the_servers_own() {
    answers_are_the_servers_own("prompt-logprobs").await;
}

#[tokio::test]
async fn greedy_answers_verified_by_fan_out_are_the_servers_own() {
    answers_are_the_servers_own("fan-out").await;
}

/// Whoever asked the same before has left the drafts in the prefix cache, and their rows are lost.
#[tokio::test]
async fn greedy_answers_whose_rows_the_prefix_cache_swallowed_are_the_servers_own() {
    let server = server("float32");
    let flags = neural_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Harness::start(&server, &flags).await;
    for prompt in prompts().iter().take(4) {
        let request = request(prompt, "swallowed");
        let direct = complete_directly(&server, &request).await["choices"][0].take();
        let proxied = sidecar.complete(&request).await["choices"][0].take();
        assert_same(prompt, &direct, &proxied);
    }
    assert!(sidecar.metric("sidedraft_lost_rows_total", "") > 0.0);
}
