//! At a temperature the sidecar's tokens are distributed as the server's, and a wrong rule would show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde_json::{Value, json};
use sidedraft::draft::{DraftRequest, Drafter, NeuralDrafter, ProposalFuture};
use sidedraft::model::DraftModel;
use sidedraft::rollout::DrafterFactory;
use sidedraft::setup::load_draft_model;
use sidedraft::speculation::{AcceptanceRule, Lossless};

use crate::server::{full_distribution, gguf, ids, model_dir, server};
use crate::support::harness::{Harness, settings};
use crate::support::planted::{AcceptAll, NothingSubtracted};
use crate::support::stats::{GTest, chi_square_survival, g_test};

const TOKENS: usize = 3;
/// Requests in flight.
const AT_ONCE: usize = 40;
/// A conditional distribution is tested where at least so many samples share the prefix.
const ENOUGH: u64 = 40;

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

/// Sampling parameters, as a request gives them and as vLLM applies them.
#[derive(Clone, Copy)]
struct Sampling {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
}

const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

impl Sampling {
    /// The distribution that vLLM samples from: temperature, then min-p, then top-k, then top-p.
    fn apply(&self, logprobs: &[f64]) -> Vec<f64> {
        let scaled: Vec<f64> = logprobs.iter().map(|logprob| (logprob / self.temperature).exp()).collect();
        let mut order: Vec<usize> = (0..scaled.len()).collect();
        order.sort_by(|a, b| scaled[*b].total_cmp(&scaled[*a]));
        order.retain(|id| scaled[*id] >= self.min_p * scaled[order_first(&scaled)]);
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let mass: f64 = order.iter().map(|id| scaled[*id]).sum();
        let mut above = 0.0;
        let mut kept = vec![0.0; scaled.len()];
        for id in order {
            if above >= self.top_p {
                break;
            }
            kept[id] = scaled[id];
            above += scaled[id] / mass;
        }
        let mass: f64 = kept.iter().sum();
        kept.iter().map(|p| p / mass).collect()
    }
}

fn order_first(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
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

/// The first tokens of `count` answers to `prompt`.
async fn samples(sidecar: &Harness, prompt: &[u32], sampling: Sampling, count: usize) -> Vec<Vec<u32>> {
    // Many rollouts of one prompt in a request, as a trainer samples a group.
    const GROUP: usize = 10;
    let request = json!({
        "prompt": prompt, "max_tokens": TOKENS, "n": GROUP, "ignore_eos": true, "return_token_ids": true,
        "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p
    });
    let replies: Vec<Value> = futures_util::stream::iter(0..count.div_ceil(GROUP))
        .map(|_| sidecar.complete(&request))
        .buffer_unordered(AT_ONCE.div_ceil(GROUP))
        .collect()
        .await;
    replies.iter().flat_map(|reply| reply["choices"].as_array().unwrap()).map(ids).collect()
}

/// Whether the samples come from the server's distribution: the first token's, and each later one's given those before
/// it, wherever enough samples share a prefix.
async fn judge(prompt: &[u32], sampling: Sampling, samples: &[Vec<u32>]) -> GTest {
    let mut by_prefix: BTreeMap<&[u32], BTreeMap<u32, u64>> = BTreeMap::new();
    for sample in samples {
        for position in 0..TOKENS {
            *by_prefix.entry(&sample[..position]).or_default().entry(sample[position]).or_default() += 1;
        }
    }
    let (mut g, mut dof) = (0.0, 0);
    for (prefix, counts) in by_prefix {
        if counts.values().sum::<u64>() < ENOUGH {
            continue;
        }
        let p = sampling.apply(&full_distribution(&server("float32"), &[prompt, prefix].concat()).await);
        let mut observed = vec![0; p.len()];
        for (id, count) in counts {
            assert!(p[id as usize] > 0.0, "token {id} after {prefix:?} cannot come from this distribution");
            observed[id as usize] = count;
        }
        let test = g_test(&observed, &p);
        g += test.g;
        dof += test.dof;
    }
    GTest { g, dof, p_value: chi_square_survival(g, dof) }
}

async fn tokenize(text: &str) -> Vec<u32> {
    let http = crate::support::harness::client();
    let reply = http.post(format!("{}/tokenize", server("float32"))).json(&json!({ "prompt": text }));
    let reply = crate::support::harness::success(reply.send().await.unwrap()).await;
    reply["tokens"].as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
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
