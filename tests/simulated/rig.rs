//! Closed-loop clients that run the same kind of rollouts directly and through the sidecar, and the virtual time both
//! take.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sidedraft::rollout::DrafterFactory;
use sidedraft::setup::Setup;
use tokio::time::Instant;

use super::plain;
use super::support::draft_engine::DraftEngine;
use super::support::fake_vllm::{CostModel, Costs, DraftCost, FakeConfig, FakeVllm, LanguageModel};
use super::support::harness::{Harness, client, success};
use super::support::nobody::Nobody;
use super::support::simulated_drafters::Simulated;
use super::support::timeline::{ROUNDS, Timeline};

/// Tokens of a prompt: one that nobody else has.
pub const PROMPT: usize = 1024;
/// Tokens of a prompt in a step of training: like most, no whole number of blocks.
const STEP_PROMPT: usize = 1000;
/// Tokens of a rollout.
pub const TOKENS: usize = 512;
/// Tokens of the rollouts by which the sidecar may learn before it is measured, as it has long done in a trainer's
/// second step.
const WARM_UP: usize = 128;

/// A target as sure of itself as a policy in training, which never ends a sequence and learns little in a step.
pub fn policy() -> LanguageModel {
    LanguageModel { sharpness: 8.0, eos_bias: -200.0, drift: 0.001, ..LanguageModel::default() }
}

/// A GPU server, a draft model and a sidecar, in virtual time.
pub struct Rig {
    timeline: Timeline,
    fake: FakeVllm,
    sidecar: Harness,
    http: reqwest::Client,
    /// A number for each rollout, so that no prompt comes twice.
    rollouts: u64,
}

/// One of the two ways to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    Direct,
    Proxied,
}

/// What is asked of both ways.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Clients, each of which sends a request when the one before is answered.
    pub clients: usize,
    /// Requests of each client.
    pub requests: usize,
    /// Tokens of each reply.
    pub tokens: usize,
    pub temperature: f64,
}

impl Workload {
    pub fn new(clients: usize, temperature: f64) -> Self {
        // A rollout alone is a small sample of acceptances; of a crowd one each is a large one.
        let requests = (8 / clients).max(1);
        Self { clients, requests, tokens: TOKENS, temperature }
    }

    fn all_tokens(&self) -> usize {
        self.clients * self.requests * self.tokens
    }
}

/// What came of a workload both ways.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    pub workload: Workload,
    /// Virtual seconds of the direct way.
    pub direct: f64,
    /// Virtual seconds through the sidecar.
    pub proxied: f64,
    /// Verifications.
    pub rounds: f64,
    /// Drafts verified, and accepted.
    pub drafted: f64,
    pub accepted: f64,
    /// Tokens that came without a draft.
    pub decoded: f64,
}

impl Compared {
    /// How many times as fast the sidecar is.
    pub fn ratio(&self) -> f64 {
        self.direct / self.proxied
    }

    /// Tokens a virtual second, directly and through the sidecar.
    pub fn speeds(&self) -> (f64, f64) {
        let tokens = self.workload.all_tokens() as f64;
        (tokens / self.direct, tokens / self.proxied)
    }

    /// Prints a line of the table that [`heading`] begins.
    pub fn print(&self, name: &str) {
        let (direct, proxied) = self.speeds();
        let per_round = if self.rounds > 0.0 { self.drafted / self.rounds } else { 0.0 };
        let kept = if self.drafted > 0.0 { 100.0 * self.accepted / self.drafted } else { 0.0 };
        let decoded = 100.0 * self.decoded / self.workload.all_tokens() as f64;
        println!(
            "{name:<22} {:>4} {:>4} {direct:>9.1} {proxied:>9.1} {:>6.3} {:>7.0} {per_round:>6.2} {kept:>5.1}% {decoded:>5.1}%",
            self.workload.clients,
            self.workload.temperature,
            self.ratio(),
            self.rounds,
        );
    }
}

/// Prints what the columns are.
pub fn heading() {
    println!(
        "{:<22} {:>4} {:>4} {:>9} {:>9} {:>6} {:>7} {:>6} {:>6} {:>6}",
        "drafter", "at", "temp", "direct/s", "proxied/s", "ratio", "rounds", "drafts", "kept", "plain"
    );
}

impl Rig {
    /// The profile, with a drafter whose drafts are accepted with probability `acceptance`.
    pub async fn start(acceptance: f64, flags: &[&str]) -> Self {
        Self::with_draft_model(DraftCost::h100_8b(), acceptance, flags).await
    }

    /// The same with a draft model that takes what `cost` says.
    pub async fn with_draft_model(cost: DraftCost, acceptance: f64, flags: &[&str]) -> Self {
        let timeline = Timeline::start();
        let engine = DraftEngine::start(cost, timeline.clone());
        let drafters = Simulated::factory(&policy(), acceptance, engine);
        Self::with_drafters(timeline, drafters, flags).await
    }

    /// The profile, with nobody to draft: the sidecar decodes plainly.
    pub async fn without_drafters() -> Self {
        Self::with_history_alone(&[]).await
    }

    /// The profile, with no drafters but those that `flags` have draft from earlier rollouts.
    pub async fn with_history_alone(flags: &[&str]) -> Self {
        Self::with_drafters(Timeline::start(), Arc::new(Nobody), flags).await
    }

    /// The profile with any drafters and flags.
    pub async fn with_drafters(timeline: Timeline, drafters: Arc<dyn DrafterFactory>, flags: &[&str]) -> Self {
        Self::of(policy(), timeline, Some(drafters), flags).await
    }

    /// The profile with a target that speaks like this, and no drafters but those that `flags` name.
    pub async fn speaking(language: LanguageModel, flags: &[&str]) -> Self {
        Self::of(language, Timeline::start(), None, flags).await
    }

    async fn of(
        language: LanguageModel,
        timeline: Timeline,
        drafters: Option<Arc<dyn DrafterFactory>>,
        flags: &[&str],
    ) -> Self {
        let costs = Some(Costs { model: CostModel::h100_8b(), timeline: timeline.clone() });
        let fake = FakeVllm::start(FakeConfig { language, costs, records: false, ..FakeConfig::default() }).await;
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = fake.write_tokenizer(folder.path());
        let flags = [&["--speculate", "auto", "--tokenizer", tokenizer.to_str().unwrap()], flags].concat();
        let change = |setup: Setup| match drafters {
            Some(drafters) => setup.with_drafters(drafters),
            None => setup,
        };
        let sidecar = Harness::start_with(&fake.url(), &flags, change).await;
        sidecar.sidecar.ready().await;
        Self { timeline, fake, sidecar, http: client(), rollouts: 0 }
    }

    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.sidecar.metric(name, labels)
    }

    /// Runs `workload` directly, lets the sidecar learn, and runs it through the sidecar.
    pub async fn compare(&mut self, workload: Workload) -> Compared {
        let direct = self.run(&self.fake.url(), workload).await;
        let predicted = plain::crowd(&CostModel::h100_8b(), workload, PROMPT).as_secs_f64();
        assert!((direct - predicted).abs() < 1e-6, "virtual time is not to be trusted: {direct} s for {predicted} s");
        let url = self.sidecar.url.clone();
        self.run(&url, Workload { tokens: WARM_UP, requests: 1, ..workload }).await;
        let before = self.counts();
        let proxied = self.run(&url, workload).await;
        let after = self.counts();
        let [rounds, drafted, accepted, decoded] = std::array::from_fn(|at| after[at] - before[at]);
        let deepest = self.timeline.deepest();
        assert!(deepest < ROUNDS / 2, "virtual time is not to be trusted: {deepest} of {ROUNDS} rounds");
        assert!(self.metric("sidedraft_requests_total", "forwarded") < 0.5, "a rollout was only forwarded");
        Compared { workload, direct, proxied, rounds, drafted, accepted, decoded }
    }

    fn counts(&self) -> [f64; 4] {
        let accepted = "vllm:spec_decode_num_accepted_tokens_total";
        let drafted = "vllm:spec_decode_num_draft_tokens_total";
        ["vllm:spec_decode_num_drafts_total", drafted, accepted, "sidedraft_decoded_tokens_total"]
            .map(|name| self.metric(name, ""))
    }

    /// The virtual seconds until the last of the clients has its last reply.
    async fn run(&mut self, url: &str, workload: Workload) -> f64 {
        let first = self.rollouts;
        self.rollouts += (workload.clients * workload.requests) as u64;
        let start = Instant::now();
        let this = &*self;
        let client = |number: usize| async move {
            for request in 0..workload.requests {
                let rollout = first + (number * workload.requests + request) as u64;
                this.rollout(url, workload, rollout).await;
            }
        };
        join_all((0..workload.clients).map(client)).await;
        start.elapsed().as_secs_f64()
    }

    /// Moves the weights as a trainer does, and samples the workload's rollouts, whose prompts are those of every epoch:
    /// the virtual seconds that takes.
    pub async fn epoch(&mut self, weights: u32, workload: Workload) -> f64 {
        self.sidecar.update_weights(weights).await;
        self.rollouts = 0;
        let url = self.sidecar.url.clone();
        self.run(&url, workload).await
    }

    /// Moves the weights as a trainer does.
    pub async fn move_weights(&self, weights: u32) {
        self.sidecar.update_weights(weights).await;
    }

    /// The virtual seconds of a step: waves of as many rollouts as there are `clients`, each of whole groups of `siblings`,
    /// whose prompts are those of every other step. Rollouts of one `arm` share the server's prefix cache.
    pub async fn step(&self, arm: Arm, clients: usize, waves: usize, siblings: usize) -> f64 {
        let (url, salt) = match arm {
            Arm::Direct => (self.fake.url(), "direct"),
            Arm::Proxied => (self.sidecar.url.clone(), "proxied"),
        };
        let groups = clients / siblings;
        let (url, start) = (url.as_str(), Instant::now());
        let client = |client: usize| async move {
            for wave in 0..waves {
                let workload = Workload::new(clients, 1.0);
                let number = (wave * groups + client % groups) as u64;
                self.rollout_after(STEP_PROMPT, url, workload, number, Some(salt)).await;
            }
        };
        join_all((0..clients).map(client)).await;
        start.elapsed().as_secs_f64()
    }

    /// Whether the next rollout says the same directly and through the sidecar.
    pub async fn says_the_same(&mut self, workload: Workload) -> bool {
        let number = self.rollouts;
        self.rollouts += 1;
        let direct = self.rollout(&self.fake.url(), workload, number).await;
        self.rollout(&self.sidecar.url, workload, number).await == direct
    }

    /// The virtual seconds that two workloads take side by side, through the sidecar or directly.
    pub async fn run_beside(&mut self, one: Workload, other: Workload, through: bool) -> f64 {
        let url = if through { self.sidecar.url.clone() } else { self.fake.url() };
        let first = self.rollouts;
        self.rollouts += (one.clients + other.clients) as u64;
        let start = Instant::now();
        let this = &*self;
        let all = (0..one.clients).map(|_| one).chain((0..other.clients).map(|_| other)).enumerate();
        let url = url.as_str();
        join_all(all.map(|(at, workload)| this.rollout(url, workload, first + at as u64))).await;
        start.elapsed().as_secs_f64()
    }

    /// One rollout, as an RL trainer asks for it; returns its tokens.
    async fn rollout(&self, url: &str, workload: Workload, number: u64) -> Vec<u32> {
        self.rollout_after(PROMPT, url, workload, number, None).await
    }

    async fn rollout_after(
        &self,
        length: usize,
        url: &str,
        workload: Workload,
        number: u64,
        salt: Option<&str>,
    ) -> Vec<u32> {
        let mut rng = StdRng::seed_from_u64(number);
        let prompt: Vec<u32> = (0..length).map(|_| rng.random_range(0..60)).collect();
        let Workload { tokens, temperature, .. } = workload;
        let mut body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": temperature, "logprobs": 1,
            "return_token_ids": true});
        if let Some(salt) = salt {
            body["cache_salt"] = json!(salt);
        }
        let reply = success(self.http.post(format!("{url}/v1/completions")).json(&body).send().await.unwrap()).await;
        let ids: Vec<u32> = serde_json::from_value(reply["choices"][0]["token_ids"].clone()).unwrap();
        assert_eq!(ids.len(), tokens);
        ids
    }
}

/// Seconds as a cost model has them.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
