//! A server that a test starts for itself, to do to it what it likes.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A vLLM of this test's own.
pub struct Server {
    script: Child,
    pub url: String,
    pid: u64,
}

impl Server {
    /// Starts a server on `port`, of the model in a folder if it is not to be the usual one, and waits until it answers.
    /// Blocks for a minute or more.
    pub fn start(preset: &str, port: u16, model: Option<&str>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/target/target.py");
        let mut script = Command::new("python3")
            .args([script, "serve", preset, "--port", &port.to_string()])
            .args(model.iter().flat_map(|folder| ["--model", folder]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).expect("the server should have come up");
        Self { script, url: said["url"].as_str().unwrap().to_owned(), pid: said["pid"].as_u64().unwrap() }
    }

    /// Kills every process of the server at once, without a chance to say goodbye.
    pub fn kill(&self) {
        self.signal("KILL");
    }

    /// Sends a signal to every process of the server.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), "--", &format!("-{}", self.pid)]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input makes the script stop what it started.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// A port that nobody listens to now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
