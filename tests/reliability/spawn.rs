//! This program as a fake server in a process of its own, so that it can be sent signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::rig::endless;
use super::support::fake_vllm::{FakeConfig, FakeVllm, LanguageModel};

/// The word that makes this program a server.
pub const FAKE: &str = "--fake-vllm";

/// What a fake server is started with. All else is as usual.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `vocabulary` of the model.
    pub vocabulary: usize,
    /// Label of the weights.
    pub weights: String,
    pub model: String,
    /// Milliseconds that a token takes.
    pub latency: u64,
}

impl Default for Spec {
    fn default() -> Self {
        let config = FakeConfig::default();
        let (vocabulary, weights) = (config.language.vocab, config.language.weights);
        Self { vocabulary, weights, model: config.model_name, latency: 0 }
    }
}

impl Spec {
    /// What computes its tokens.
    pub fn language(&self) -> LanguageModel {
        let language = LanguageModel { vocab: self.vocabulary, ..endless() };
        if self.weights == language.weights { language } else { language.with_weights(&self.weights) }
    }

    fn words(&self, address: SocketAddr) -> [String; 5] {
        let Self { vocabulary, weights, model, latency } = self;
        [address.to_string(), vocabulary.to_string(), weights.clone(), model.clone(), latency.to_string()]
    }
}

/// Serves until standard input ends.
pub fn fake_vllm(words: &[String]) -> ExitCode {
    let [address, vocabulary, weights, model, latency] = words else { return ExitCode::FAILURE };
    let spec = Spec {
        vocabulary: vocabulary.parse().unwrap(),
        weights: weights.clone(),
        model: model.clone(),
        latency: latency.parse().unwrap(),
    };
    let config = FakeConfig {
        language: spec.language(),
        model_name: spec.model.clone(),
        token_latency: Duration::from_millis(spec.latency),
        records: false,
        ..FakeConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = address.parse().unwrap();
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = ended.send(());
    });
    runtime.block_on(async {
        let fake = FakeVllm::start_at(config, address).await;
        println!("{}", fake.address());
        std::io::stdout().flush().unwrap();
        let _ = end.await;
    });
    ExitCode::SUCCESS
}

/// A fake server in a process of its own. It ends with this.
pub struct FakeProcess {
    child: Child,
    pub address: SocketAddr,
}

impl FakeProcess {
    /// Starts one, and returns when it listens.
    pub fn start(spec: &Spec, address: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(FAKE)
            .args(spec.words(address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().expect("the fake should have come up") }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it outright; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        // It may have been killed, or stopped, in which state it would not see its input end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A thousand clients, their connections and the server's are all this process's.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}
