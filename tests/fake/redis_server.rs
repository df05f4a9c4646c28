//! A real Redis server, Debian's, for one test: on a socket of its own, keeping nothing, and as sick as the test wants it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::rig::Rig;

/// A running server. Dropping it ends it.
pub struct RedisServer {
    child: Child,
    folder: TempDir,
}

impl RedisServer {
    /// A server, once it takes connections.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::spawn(&folder).await;
        Self { child, folder }
    }

    async fn spawn(folder: &TempDir) -> Child {
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Debian's redis-server: `make redis` installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it starts").contains("ready to accept connections") {}
        // It would wait for somebody who reads.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        child
    }

    /// Where it is, as a flag of the sidecar's wants it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.folder.path().join("redis.sock").display())
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again after it was killed, empty.
    pub async fn restart(&mut self) {
        self.child = Self::spawn(&self.folder).await;
    }

    /// Stops it without ending it: connections stay, and nothing is answered.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// The answer to a command whose words have no spaces.
    pub async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.connect().await).await.unwrap()
    }

    /// The keys of all prompts.
    pub async fn prompts(&self) -> Vec<String> {
        self.ask("KEYS *:p:*").await
    }

    /// The names of a prompt's fields of one kind.
    pub async fn fields(&self, prompt: &str, kind: &str) -> Vec<String> {
        let fields: Vec<String> = self.ask(&format!("HKEYS {prompt}")).await;
        fields.into_iter().filter(|field| field.starts_with(kind)).collect()
    }

    /// Changes every record, or text, of every prompt.
    pub async fn change(&self, kind: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> usize {
        let mut link = self.connect().await;
        let mut changed = 0;
        for prompt in self.prompts().await {
            for field in self.fields(&prompt, kind).await {
                let value: Vec<u8> = redis::cmd("HGET").arg(&prompt).arg(&field).query_async(&mut link).await.unwrap();
                let mut set = redis::cmd("HSET");
                let _: i64 = set.arg(&prompt).arg(&field).arg(change(value)).query_async(&mut link).await.unwrap();
                changed += 1;
            }
        }
        changed
    }

    /// Waits until so many sidecars have told that they have this version, and none has another.
    pub async fn moved(&self, sidecars: usize, version: &str) {
        let digest = ring::digest::digest(&ring::digest::SHA256, version.as_bytes());
        let tag: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let keys: Vec<String> = self.ask("KEYS *:v:*").await;
            let mut versions: Vec<String> = Vec::new();
            for key in &keys {
                versions.push(self.ask(&format!("GET {key}")).await);
            }
            if versions.len() == sidecars && versions.iter().all(|version| *version == tag) {
                return;
            }
            assert!(Instant::now() < deadline, "{keys:?} {versions:?}");
        }
    }
}

/// Waits until a metric of a sidecar has this value.
pub async fn until(rig: &Rig, name: &str, labels: &str, value: f64) {
    until_it(rig, name, labels, |now| now == value).await;
}

/// The same until it is as one wants it.
pub async fn until_it(rig: &Rig, name: &str, labels: &str, is_so: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so(rig.metric(name, labels)) {
        assert!(Instant::now() < deadline, "{name} {labels} is {}", rig.metric(name, labels));
        tokio::task::yield_now().await;
    }
}

/// The sum of a metric of the shared history.
pub fn figure(rig: &Rig, name: &str, labels: &str) -> f64 {
    rig.metric(&format!("sidedraft_history_redis_{name}"), labels)
}
