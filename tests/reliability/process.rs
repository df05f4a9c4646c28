//! The sidecar as users run it, in a process of its own.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::census::Census;
use super::fetch::{fetch, succeeds};

/// A running `sidedraft serve`, killed with this.
pub struct Process {
    child: Child,
    pub url: String,
    pub pid: i32,
}

impl Process {
    /// Starts it with these flags, by the words of `through` (of a shell that limits it, for one), if any, and with these
    /// variables.
    pub async fn start(upstream: &str, flags: &[String], through: &[&str], variables: &[(String, String)]) -> Self {
        let binary = env!("CARGO_BIN_EXE_sidedraft");
        let words: Vec<&str> = through.iter().copied().chain([binary]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--upstream", upstream, "--listen", "127.0.0.1:0", "--log", "off"])
            .args(flags)
            .envs(variables.iter().cloned())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it should say where it listens");
        let said: Value = serde_json::from_str(&line).unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        Self { child, url: said["listening"].as_str().unwrap().to_owned(), pid }
    }

    /// What there is now; the connection that asks is among it.
    pub async fn census(&self) -> Census {
        Census::of(&self.page().await, &self.pid.to_string())
    }

    pub async fn is_ready(&self) -> bool {
        succeeds(&self.url, "/sidedraft/ready").await
    }

    /// The metrics page.
    pub async fn page(&self) -> String {
        fetch(&self.url, "/sidedraft/metrics").await.expect("it should be there").1
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).unwrap(), signal).unwrap();
    }

    /// How it ends, if it does before long.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.expect("it should end").unwrap()
    }
}
