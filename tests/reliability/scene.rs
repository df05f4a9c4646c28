//! A fake server, a sidecar in front of it with a draft model, and the count of what there is before and after.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sidedraft::model::{DraftModel, ModelOptions, ModelSource};
use sidedraft::rollout::DrafterFactory;
use sidedraft::speculation::AcceptanceRule;
use tempfile::TempDir;

use super::census::Census;
use super::fetch::fetch;
use super::load::{Answer, Load};
use super::process::Process;
use super::rig::endless;
use super::row::{Seen, Tally};
use super::spawn::{FakeProcess, Spec};
use super::support::fake_vllm::{ANY_PORT, FakeConfig, FakeVllm, LanguageModel, TextCodec};
use super::support::harness::Harness;
use super::tiny_llama;

/// The fake server, in this process or in one of its own.
pub enum Server {
    Here(FakeVllm),
    There(FakeProcess, Spec),
}

/// The sidecar, in this process or as a command.
pub enum Side {
    Here(Box<Harness>),
    There(Box<Process>),
}

/// The words that the sidecar is started through, and variables of its environment.
type Command = (Vec<&'static str>, Vec<(String, String)>);

/// What a scene differs in from the usual one, which has everything in this process.
#[derive(Default)]
pub struct Plan {
    config: FakeConfig,
    spec: Option<Spec>,
    flags: Vec<String>,
    command: Option<Command>,
    drafters: Option<Arc<dyn DrafterFactory>>,
    rule: Option<Arc<dyn AcceptanceRule>>,
}

impl Plan {
    /// A server whose tokens take so many milliseconds.
    pub fn new(latency: u64) -> Self {
        let token_latency = Duration::from_millis(latency);
        Self::of(FakeConfig { token_latency, ..FakeConfig::default() })
    }

    /// A server that does not end its sequences, but is otherwise like this.
    pub fn of(config: FakeConfig) -> Self {
        let config = FakeConfig { language: endless(), records: false, ..config };
        Self { config, ..Self::default() }
    }

    /// A server in a process of its own.
    pub fn there(spec: Spec) -> Self {
        Self { spec: Some(spec), ..Self::new(0) }
    }

    /// Adds flags, separated by spaces.
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    /// The sidecar as a command, started by the words of `through` and with these variables.
    pub fn command(self, through: &[&'static str], variables: &[(String, String)]) -> Self {
        Self { command: Some((through.to_vec(), variables.to_vec())), ..self }
    }

    pub fn drafters(self, drafters: Arc<dyn DrafterFactory>) -> Self {
        Self { drafters: Some(drafters), ..self }
    }

    pub fn rule(self, rule: Arc<dyn AcceptanceRule>) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The scene, ready and idle.
    pub async fn start(self) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let (server, language) = match self.spec {
            Some(spec) => {
                let language = spec.language();
                (Server::There(FakeProcess::start(&spec, ANY_PORT), spec), language)
            }
            None => {
                let language = self.config.language.clone();
                (Server::Here(FakeVllm::start(self.config).await), language)
            }
        };
        tiny_llama::write(folder.path(), &TextCodec::new(language.vocab), language.vocab);
        let path = folder.path().to_str().unwrap().to_owned();
        let mut flags = vec!["--tokenizer".to_owned(), path.clone()];
        flags.extend(self.flags);
        let (side, model) = match self.command {
            Some((through, variables)) => {
                flags.extend(
                    ["--draft-model", &path, "--drafter", "neural", "--speculate", "always"].map(str::to_owned),
                );
                flags.extend(["--draft-tokens", "4"].map(str::to_owned));
                (Side::There(Box::new(Process::start(&server.url(), &flags, &through, &variables).await)), None)
            }
            None => {
                let source = ModelSource::from_path(folder.path());
                let model = DraftModel::load(&source, &ModelOptions::default()).unwrap().spawn().unwrap();
                let kept = model.clone();
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                let url = server.url();
                let harness = Harness::start_with(&url, &flags, |setup| {
                    let setup = setup.with_draft_model(model);
                    let setup = if let Some(rule) = self.rule { setup.with_rule(rule) } else { setup };
                    if let Some(drafters) = self.drafters { setup.with_drafters(drafters) } else { setup }
                });
                (Side::Here(Box::new(harness.await)), Some(kept))
            }
        };
        let mut scene = Scene {
            server,
            side,
            model,
            language,
            before: Census::default(),
            most: Census::default(),
            _folder: folder,
        };
        scene.ready().await;
        scene
    }

    /// The same after a few requests, with what is left of those counted.
    pub async fn start_warm(self) -> Scene {
        let mut scene = self.start().await;
        scene.load(8).many(6).await;
        scene.take_stock().await;
        scene
    }
}

impl Server {
    pub fn url(&self) -> String {
        match self {
            Self::Here(fake) => fake.url(),
            Self::There(fake, _) => format!("http://{}", fake.address),
        }
    }

    /// Requests that it works on.
    pub async fn running(&self) -> u64 {
        match self {
            Self::Here(fake) => fake.running() as u64,
            Self::There(..) => {
                let Some((_, page)) = fetch(&self.url(), "/metrics").await else { return 0 };
                let line = page.lines().find(|line| line.starts_with("vllm:num_requests_running"));
                line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            }
        }
    }

    pub async fn down(&mut self) {
        match self {
            Self::Here(fake) => fake.kill().await,
            Self::There(fake, _) => fake.kill(),
        }
    }

    /// Comes back where it was, after it was down.
    pub async fn up(&mut self) {
        match self {
            Self::Here(fake) => fake.restart().await,
            Self::There(fake, spec) => *fake = FakeProcess::start(spec, fake.address),
        }
    }
}

/// Everything under way.
pub struct Scene {
    pub server: Server,
    pub side: Side,
    /// The draft model, where it is in this process.
    pub model: Option<DraftModel>,
    /// What computes the server's tokens.
    pub language: LanguageModel,
    before: Census,
    most: Census,
    _folder: TempDir,
}

impl Scene {
    pub fn url(&self) -> &str {
        match &self.side {
            Side::Here(harness) => &harness.url,
            Side::There(process) => &process.url,
        }
    }

    /// The fake server, which is in this process.
    pub fn fake(&self) -> &FakeVllm {
        let Server::Here(fake) = &self.server else { panic!("it has a process of its own") };
        fake
    }

    /// The fake server's process.
    pub fn fake_process(&self) -> &FakeProcess {
        let Server::There(fake, _) = &self.server else { panic!("it has no process of its own") };
        fake
    }

    /// The sidecar's process.
    pub fn process(&mut self) -> &mut Process {
        let Side::There(process) = &mut self.side else { panic!("it has no process of its own") };
        process
    }

    /// Clients who want so many tokens of the server's model.
    pub fn load(&self, tokens: usize) -> Load {
        Load { url: self.url().to_owned(), tokens, languages: vec![("default", self.language.clone())] }
    }

    /// Returns once the sidecar speculates.
    pub async fn ready(&mut self) {
        match &self.side {
            Side::Here(harness) => harness.sidecar.ready().await,
            Side::There(process) => until("it is ready", async || process.is_ready().await).await,
        }
    }

    async fn census(&self) -> Census {
        match &self.side {
            Side::Here(harness) => Census::of(&harness.sidecar.metrics().encode(), "self"),
            Side::There(process) => process.census().await,
        }
    }

    /// The sidecar's metrics page.
    pub async fn page(&self) -> String {
        match &self.side {
            Side::Here(harness) => harness.sidecar.metrics().encode(),
            Side::There(process) => process.page().await,
        }
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.page().await;
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(labels);
        page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Counts what there is while nothing happens. Connections to the server that are kept open go with it.
    pub async fn take_stock(&mut self) {
        self.server.down().await;
        let own = u64::from(matches!(self.side, Side::There(_)));
        until("the clients' connections close", async || self.census().await.connections <= own).await;
        let mut before = self.census().await;
        for _ in 0..40 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            before = before.least(self.census().await);
        }
        self.before = before;
        self.server.up().await;
        self.ready().await;
    }

    /// Notes what there is now.
    pub async fn note(&mut self) {
        let now = Census { upstream: self.server.running().await, ..self.census().await };
        self.most = self.most.most(now);
    }

    /// Notes what there is once so many rollouts are under way and the server works.
    pub async fn busy(&mut self, rollouts: u64) {
        until("rollouts are under way", async || {
            self.census().await.rollouts >= rollouts && self.server.running().await > 0
        })
        .await;
        self.note().await;
    }

    /// Clients' answers to what goes on while `during` happens to the scene.
    pub async fn during(&mut self, load: &Load, count: usize, during: impl AsyncFnOnce(&mut Self)) -> Vec<Answer> {
        let load = load.clone();
        let asked = tokio::spawn(async move { load.many(count).await });
        self.busy(count as u64).await;
        during(self).await;
        asked.await.unwrap()
    }

    /// Waits until nothing is left.
    pub async fn end(mut self, tally: Tally) -> Seen {
        until("the server is idle", async || self.server.running().await == 0).await;
        self.server.down().await;
        let started = Instant::now();
        let mut left = self.census().await.above(self.before);
        while left != Census::default() && started.elapsed() < Duration::from_secs(30) {
            wait_a_little().await;
            left = self.census().await.above(self.before);
        }
        let most = self.most.above(self.before);
        assert_eq!(left, Census::default(), "left over of {most}");
        Seen { clients: tally.to_string(), most, left }
    }
}

impl Scene {
    /// The same of a sidecar whose process has ended, and all that was its with it.
    pub async fn ended(self, tally: Tally) -> Seen {
        until("the server is idle", async || self.server.running().await == 0).await;
        Seen { clients: tally.to_string(), most: self.most.above(self.before), left: Census::default() }
    }
}

/// What is waited for may be done by another process, or by timers of this one.
async fn wait_a_little() {
    tokio::task::yield_now().await;
    std::thread::yield_now();
}

/// Returns once `holds`.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            wait_a_little().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Returns what comes first of something and a minute.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
