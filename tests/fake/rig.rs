//! A fake server, a sidecar in front of it, and what tests ask of both.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::rollout::DrafterFactory;
use sidedraft::speculation::AcceptanceRule;
use tempfile::TempDir;

use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel};
use super::support::harness::Harness;

pub const COMPLETIONS: &str = "/v1/completions";
pub const GENERATE: &str = "/inference/v1/generate";
pub const STRATEGIES: [&str; 3] = ["cached-suffix", "prompt-logprobs", "fan-out"];

/// A sidecar in front of a fake server, once it has probed it.
pub struct Rig {
    pub fake: FakeVllm,
    pub sidecar: Harness,
    folder: TempDir,
}

/// What a rig differs in from the usual one, which drafts n-grams.
#[derive(Default)]
pub struct Plan {
    pub config: FakeConfig,
    pub flags: Vec<String>,
    pub drafters: Option<Arc<dyn DrafterFactory>>,
    pub rule: Option<Arc<dyn AcceptanceRule>>,
}

impl Plan {
    pub fn new(config: FakeConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Adds flags, separated by spaces.
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    pub fn strategy(self, strategy: &str) -> Self {
        self.flags(&format!("--strategy {strategy}"))
    }

    pub fn drafters(self, drafters: Arc<dyn DrafterFactory>) -> Self {
        Self { drafters: Some(drafters), ..self }
    }

    pub fn rule(self, rule: Arc<dyn AcceptanceRule>) -> Self {
        Self { rule: Some(rule), ..self }
    }

    pub async fn start(self) -> Rig {
        let fake = FakeVllm::start(self.config.clone()).await;
        let rig = self.in_front_of(fake).await;
        rig.sidecar.sidecar.ready().await;
        rig.fake.forget_requests();
        rig
    }

    /// The sidecar as it starts, before it has probed its server.
    pub async fn in_front_of(self, fake: FakeVllm) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = fake.write_tokenizer(folder.path());
        let mut flags = vec!["--tokenizer", tokenizer.to_str().unwrap()];
        flags.extend(self.flags.iter().map(String::as_str));
        let url = fake.url();
        let sidecar = Harness::start_with(&url, &flags, |setup| {
            let setup = if let Some(drafters) = self.drafters { setup.with_drafters(drafters) } else { setup };
            if let Some(rule) = self.rule { setup.with_rule(rule) } else { setup }
        });
        let sidecar = sidecar.await;
        Rig { fake, sidecar, folder }
    }
}

impl Rig {
    /// The usual server with a drafter that is often right.
    pub async fn usual() -> Self {
        Self::drafting(FakeConfig::default()).await
    }

    /// A drafter that is often right, in front of a server of `config`.
    pub async fn drafting(config: FakeConfig) -> Self {
        let drafters = super::drafters::often_right(&config.language);
        Plan::new(config).drafters(drafters).start().await
    }

    /// Where the server's tokenizer lies.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What the server itself answers.
    pub async fn direct(&self, path: &str, body: &Value) -> (StatusCode, Bytes) {
        answer(self.sidecar.http.post(self.fake.url() + path).json(body)).await
    }

    /// What the sidecar answers.
    pub async fn through(&self, path: &str, body: &Value) -> (StatusCode, Bytes) {
        answer(self.sidecar.http.post(format!("{}{path}", self.sidecar.url)).json(body)).await
    }

    /// The sidecar's answer to a completion that succeeds.
    pub async fn complete(&self, body: &Value) -> Value {
        self.sidecar.complete(body).await
    }

    /// The server's own answer to a completion that succeeds.
    pub async fn complete_directly(&self, body: &Value) -> Value {
        let (status, reply) = self.direct(COMPLETIONS, body).await;
        assert_eq!(status, StatusCode::OK, "{reply:?}");
        serde_json::from_slice(&reply).unwrap()
    }

    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.sidecar.metric(name, labels)
    }

    /// Verifications by a strategy.
    pub fn verified(&self, strategy: &str) -> f64 {
        self.metric("sidedraft_verify_calls_total", &format!("\"{strategy}\""))
    }

    /// Drafts that were accepted.
    pub fn accepted(&self) -> f64 {
        self.metric("vllm:spec_decode_num_accepted_tokens_total", "")
    }

    /// Requests by what became of them.
    pub fn outcome(&self, outcome: &str) -> f64 {
        self.metric("sidedraft_requests_total", &format!("outcome=\"{outcome}\""))
    }

    pub fn forwarded(&self, reason: &str) -> f64 {
        self.metric("sidedraft_requests_total", &format!("outcome=\"forwarded\",reason=\"{reason}\""))
    }
}

/// Status and body of a reply.
pub async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Bytes) {
    let reply = request.send().await.unwrap();
    (reply.status(), reply.bytes().await.unwrap())
}

/// A model that says no end of sequence.
pub fn endless() -> LanguageModel {
    LanguageModel { eos_bias: -30.0, ..LanguageModel::default() }
}

/// A greedy request for `max_tokens` tokens.
pub fn greedy(max_tokens: usize) -> Value {
    json!({"prompt": [5, 6, 7], "temperature": 0, "max_tokens": max_tokens, "return_token_ids": true})
}
