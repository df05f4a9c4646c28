//! The sidecar that is measured: a process of its own, in front of the trivial upstream.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::traffic::{Kind, tokenizer};

/// A running sidecar.
pub(super) struct Sidecar {
    pub address: SocketAddr,
    pub process: Process,
    /// Kept open, so that the sidecar has somewhere to write.
    _stdout: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Sidecar {
    /// Starts `program` before `upstream` and waits until it could speculate: only then does it parse what it forwards.
    pub(super) fn start(program: &Path, upstream: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for the sidecar")?;
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, tokenizer().to_string())?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--drain-timeout", "0"])
            .args(["--upstream", &format!("http://{upstream}"), "--drafter", "ngram"])
            .arg("--tokenizer")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stdout = child.stdout.take().context("the sidecar's output is lost")?;
        let process = Process(child);
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the sidecar does not say where it listens")?;
        let url = said["listening"].as_str().and_then(|url| url.strip_prefix("http://"));
        let address = url.context("the sidecar does not say where it listens")?.parse()?;
        let mut sidecar = Self { address, process, _stdout: stdout, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while sample(&sidecar.metrics()?, "sidedraft_upstream_ready", "") < 1 {
            ensure!(sidecar.process.runs(), "the sidecar ended");
            if Instant::now() > deadline {
                bail!("the sidecar has not finished its probe");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(sidecar)
    }

    /// How many requests of a kind it has forwarded.
    pub(super) fn forwarded(&self, kind: Kind) -> anyhow::Result<u64> {
        let labels = format!("{{outcome=\"forwarded\",reason=\"{}\"}}", kind.reason());
        Ok(sample(&self.metrics()?, "sidedraft_requests_total", &labels))
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.address).context("the sidecar does not answer")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

/// The value of one sample of a metrics page, 0 as long as it is not there.
fn sample(page: &str, name: &str, labels: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(labels)?.strip_prefix(' ')?.trim().parse().ok();
    page.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_name_and_labels() {
        let page = "# TYPE a counter\na{x=\"1\"} 3\na{x=\"2\"} 4\nab 5\n";
        assert_eq!(sample(page, "a", "{x=\"2\"}"), 4);
        assert_eq!((sample(page, "ab", ""), sample(page, "c", "")), (5, 0));
    }
}
