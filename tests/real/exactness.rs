//! At a temperature the sidecar's tokens are distributed as the server's, and a wrong rule would show.

use std::sync::{Arc, Mutex};

use serde_json::json;
use sidedraft::draft::{DraftRequest, Drafter, NeuralDrafter, ProposalFuture};
use sidedraft::model::DraftModel;
use sidedraft::rollout::DrafterFactory;
use sidedraft::setup::load_draft_model;
use sidedraft::speculation::{AcceptanceRule, Lossless};

use crate::sampled::{PLAIN, Sampling, judge, samples, tokenize};
use crate::server::{gguf, ids, model_dir, server};
use crate::support::harness::{Harness, settings};
use crate::support::planted::{AcceptAll, NothingSubtracted};

/// The draft model at another temperature than the target's: drafts as wrong as this show whether the rules mend them.
///
/// It goes back to its pool at the end of a rollout, so that the next one on the same prompt need not read it again.
struct Distorted {
    drafter: Option<NeuralDrafter>,
    temperature: f64,
    pool: Pool,
}

/// Drafts from far too flat a distribution, much of it where the target has little.
const FLATTENED: f64 = 2.5;
/// Drafts from far too narrow a distribution, so that a rejection leaves much to the tail.
const SHARPENED: f64 = 0.5;

type Pool = Arc<Mutex<Vec<NeuralDrafter>>>;

impl Drafter for Distorted {
    fn name(&self) -> &'static str {
        "distorted"
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        let temperature = self.temperature;
        self.drafter.as_mut().unwrap().propose(DraftRequest { temperature, top_k: None, ..request })
    }
}

impl Drop for Distorted {
    fn drop(&mut self) {
        self.pool.lock().unwrap().extend(self.drafter.take());
    }
}

struct DistortedFactory {
    model: DraftModel,
    temperature: f64,
    pool: Pool,
}

impl DrafterFactory for DistortedFactory {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        let pooled = self.pool.lock().unwrap().pop();
        let new = || NeuralDrafter::new(self.model.sequence(), self.model.vocabulary_size());
        let drafter = Some(pooled.unwrap_or_else(new));
        vec![Box::new(Distorted { drafter, temperature: self.temperature, pool: Arc::clone(&self.pool) })]
    }
}

async fn sidecar(strategy: &str, rule: Arc<dyn AcceptanceRule>, temperature: f64) -> Harness {
    let server = server("float32");
    let (gguf, tokenizer) = (gguf(), model_dir());
    let flags = ["--draft-model", &gguf, "--tokenizer", &tokenizer, "--strategy", strategy, "--draft-tokens", "2"];
    let model = load_draft_model(gguf.as_ref(), &settings(&server, &flags).target).await.unwrap();
    let drafters = Arc::new(DistortedFactory { model, temperature, pool: Pool::default() });
    let sidecar = Harness::start_with(&server, &flags, |setup| setup.with_rule(rule).with_drafters(drafters)).await;
    sidecar.sidecar.ready().await;
    sidecar
}

/// Questions whose answers begin in many ways, each with how to answer it.
const QUESTIONS: [(&str, &str); 3] = [
    ("Name a fruit, please.", " in a few words"),
    ("Pick a number between 1 and 9.", ""),
    ("Tell me a story.", " in a few plain words"),
];

/// A prompt of 33 tokens: one block of the server's prefix cache and a token, so that little is computed a second time.
/// The first token after it is certain to be the line break, so that all samples share the prefix of the second, which
/// is the first to be drafted.
fn prompt((question, how): (&str, &str)) -> String {
    let system = format!("You are a helpful assistant who answers every question{how}.");
    format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant")
}

/// One retry with fresh samples: a true rule fails a test at 0.001 once in a thousand runs.
async fn assert_exact(
    strategy: &str,
    question: (&str, &str),
    sampling: Sampling,
    draft_temperature: f64,
    count: usize,
) {
    let prompt_ids = tokenize(&prompt(question)).await;
    assert_eq!(prompt_ids.len(), 33);
    let sidecar = sidecar(strategy, Arc::new(Lossless), draft_temperature).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let samples = samples(&sidecar, &prompt_ids, sampling, count).await;
        let test = judge(&prompt_ids, sampling, &samples).await;
        let Sampling { temperature, top_k, top_p, min_p } = sampling;
        eprintln!(
            "{strategy:>15}  T {temperature} top_k {top_k} top_p {top_p} min_p {min_p}  {} answers to {:?}: \
             G {:.1} on {} degrees of freedom, p = {:.4}",
            samples.len(),
            question.0,
            test.g,
            test.dof,
            test.p_value
        );
        assert!(test.dof >= 10, "a test of {} degrees of freedom says little", test.dof);
        if test.p_value > 0.001 {
            let accepted = sidecar.metric("vllm:spec_decode_num_accepted_tokens_total", "");
            let drafted = sidecar.metric("vllm:spec_decode_num_draft_tokens_total", "");
            assert!(accepted > 0.0 && accepted < drafted, "{accepted} of {drafted} drafts kept tries nothing");
            return;
        }
        seen.push(test.p_value);
    }
    panic!("{strategy}: p = {seen:?}");
}

#[tokio::test]
async fn samples_verified_by_cached_suffix_are_distributed_as_the_servers() {
    assert_exact("cached-suffix", QUESTIONS[0], PLAIN, FLATTENED, 600).await;
}

#[tokio::test]
async fn samples_verified_by_fan_out_are_distributed_as_the_servers() {
    assert_exact("fan-out", QUESTIONS[0], PLAIN, FLATTENED, 600).await;
}

/// The test must be able to fail.
async fn assert_noticed(rule: Arc<dyn AcceptanceRule>, temperature: f64) {
    let prompt = tokenize(&prompt(QUESTIONS[0])).await;
    let sidecar = sidecar("cached-suffix", rule, temperature).await;
    let samples = samples(&sidecar, &prompt, PLAIN, 600).await;
    let test = judge(&prompt, PLAIN, &samples).await;
    eprintln!("planted: G {:.1} on {} degrees of freedom, p = {:.2e}", test.g, test.dof, test.p_value);
    assert!(test.p_value < 0.001, "a wrong rule passed with p = {}", test.p_value);
}

#[tokio::test]
async fn a_rule_that_keeps_every_draft_is_noticed() {
    assert_noticed(Arc::new(AcceptAll), FLATTENED).await;
}

#[tokio::test]
async fn a_residual_without_the_subtraction_is_noticed() {
    assert_noticed(Arc::new(NothingSubtracted), SHARPENED).await;
}

/// At temperature 1 without truncation, the log-probabilities returned are the server's own for that context.
#[tokio::test]
async fn sampled_log_probabilities_are_the_servers_own() {
    let prompt = tokenize(&prompt(QUESTIONS[0])).await;
    let sidecar = sidecar("cached-suffix", Arc::new(Lossless), FLATTENED).await;
    let request = json!({
        "prompt": prompt, "max_tokens": 48, "temperature": 1.0, "logprobs": 0, "return_token_ids": true, "n": 4
    });
    let reply = sidecar.complete(&request).await;
    for choice in reply["choices"].as_array().unwrap() {
        let tokens = ids(choice);
        let all = [prompt.clone(), tokens.clone()].concat();
        let body = json!({ "prompt": all, "max_tokens": 1, "prompt_logprobs": 0 });
        let scored = crate::server::complete_directly(&server("float32"), &body).await;
        let rows = scored["choices"][0]["prompt_logprobs"].as_array().unwrap();
        for (position, token) in tokens.iter().enumerate() {
            let ours = choice["logprobs"]["token_logprobs"][position].as_f64().unwrap();
            let theirs = rows[prompt.len() + position][token.to_string()]["logprob"].as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-3, "token {position}: {ours} here, {theirs} there");
        }
    }
}

/// The long form, for `make exactness`: 3,000 answers under each kind of sampling parameters.
async fn long_form(question: (&str, &str), draft_temperature: f64) {
    let settings = [
        PLAIN,
        Sampling { temperature: 0.7, top_k: 20, ..PLAIN },
        Sampling { temperature: 0.8, top_p: 0.9, ..PLAIN },
        Sampling { min_p: 0.05, ..PLAIN },
    ];
    for sampling in settings {
        assert_exact("auto", question, sampling, draft_temperature, 3000).await;
    }
}

#[tokio::test]
#[ignore = "takes some ten minutes: make exactness"]
async fn long_form_first_question() {
    long_form(QUESTIONS[0], FLATTENED).await;
}

#[tokio::test]
#[ignore = "takes some ten minutes: make exactness"]
async fn long_form_second_question() {
    long_form(QUESTIONS[1], FLATTENED).await;
}

#[tokio::test]
#[ignore = "takes some ten minutes: make exactness"]
async fn long_form_third_question() {
    long_form(QUESTIONS[2], SHARPENED).await;
}
