//! The command itself in front of a fake server, with what it writes to standard error.

use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::support::fake_vllm::FakeVllm;
use super::support::harness::client;

/// `sidedraft serve`, running.
pub struct Served {
    pub url: String,
    pub http: reqwest::Client,
    child: Child,
    log: JoinHandle<String>,
    _folder: TempDir,
}

impl Served {
    /// In front of `fake`, which it has probed.
    pub async fn start(fake: &FakeVllm, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = fake.write_tokenizer(folder.path());
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidedraft"));
        command.args(["serve", "--upstream", &fake.url(), "--listen", "127.0.0.1:0"]);
        command.args(["--tokenizer", tokenizer.to_str().unwrap()]).args(flags).envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.unwrap();
            text
        });
        let url = line["listening"].as_str().unwrap().to_owned();
        let served = Self { url, http: client(), child, log, _folder: folder };
        served.until("sidedraft_upstream_ready", |ready| ready == 1.0).await;
        fake.forget_requests();
        served
    }

    /// The sum of the samples of a metric whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.http.get(format!("{}/sidedraft/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(labels);
        page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Asks until a metric is as it should be.
    pub async fn until(&self, name: &str, holds: impl Fn(f64) -> bool) {
        while !holds(self.metric(name, "").await) {
            tokio::task::yield_now().await;
        }
    }

    /// Tells it to stop once its rollouts are over, and gives what it logged.
    pub async fn stop(mut self) -> String {
        self.until("sidedraft_rollouts_running", |running| running == 0.0).await;
        let signal = std::process::Command::new("kill").args(["-TERM", &self.child.id().unwrap().to_string()]).status();
        assert!(signal.unwrap().success() && self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}
