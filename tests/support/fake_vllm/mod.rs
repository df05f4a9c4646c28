//! A vLLM server in the test's own process, whose every probability is known.
//!
//! Its shapes are those of vLLM 0.32 (`vllm/entrypoints/openai/completion`, `vllm/entrypoints/scale_out`); the traps of
//! prompt logprobs and the prefix cache are in it on purpose. It can be told to fail in most ways that a server does, and
//! every wait for it is a handshake.
//!
//! ```ignore
//! let fake = FakeVllm::start(FakeConfig { runner: Runner::V1, ..FakeConfig::default() }).await;
//! let proxy = start_proxy(&fake.url(), &fake.write_tokenizer(dir.path())).await;
//! let hang = fake.hang_next("/inference/v1/generate");
//! // … the proxy sends a verification …
//! hang.reached().await;
//! hang.release();
//! fake.wait_until_idle().await;
//! assert!(g_test(&observed, &fake.language().distribution(&prompt, &params)).p_value > 1e-3);
//! ```
//!
//! Weights are known by a label or a number, and can change at any token:
//!
//! ```ignore
//! let hold = fake.hold_at_token("/inference/v1/generate", 2);
//! // … a request runs and has two tokens …
//! hold.reached().await;
//! post("/pause?mode=keep"), post("/update_weights", json!({"update_info": {"weights": 7}})), post("/resume");
//! hold.release();
//! // The third token's logprob is `fake.language_of(7)`'s; its label is still `fake.weight_version()`.
//! ```
//!
//! Replies are written by [`ordered`], since the order of their keys is part of their shape; [`scheduler`] decides what
//! runs, [`batch`] steps the sequences of a request through it, and each endpoint is a file that checks a request beside
//! one that words its reply.

mod activity;
mod api_threads;
mod batch;
mod cache;
mod chat;
mod chat_logprobs;
mod chat_reply;
mod chat_template;
mod chat_validate;
mod completion_logprobs;
mod completion_reply;
mod completions;
mod config;
mod control;
mod cost_model;
mod distribution;
mod engine;
mod error;
mod faults;
mod generate;
mod generate_reply;
mod given_ids;
mod handles;
mod info;
mod language;
mod logprobs;
mod lora;
mod ordered;
mod pace;
mod params;
mod prompt;
mod reasoning;
mod render;
mod reply;
mod scheduler;
mod sequence;
mod server;
mod step_plan;
mod stepper;
mod tokenizer;
mod validate;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

// No test crate uses all of these.
#[allow(unused_imports)]
pub use self::{
    api_threads::ApiThreads,
    config::{FakeConfig, Frontend, Garbage, GenerationDefaults, LogprobsMode, Runner, Version},
    cost_model::{CostModel, DraftCost, StepLoad},
    distribution::{argmax, log_softmax, softmax},
    faults::{Fault, Hang, Spoil},
    language::{FIRST_WEIGHTS, LanguageModel},
    pace::Costs,
    params::SamplingParams,
    server::Received,
    step_plan::{Key, Limits, Prompts, Queue, StepPlan},
    stepper::EngineLoad,
    tokenizer::{EOS_TEXT, TextCodec},
};

use activity::Activity;
use engine::Engine;
use faults::Faults;
use server::Shared;

/// A free port of this machine's own.
pub const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener that a crowd may knock at in one instant: what finds the usual queue of 128 full is dropped by the kernel
/// and tries again a second later.
#[must_use]
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(4096).unwrap()
}

/// A running fake. Dropping it closes its port and every connection.
pub struct FakeVllm {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl FakeVllm {
    /// Starts a server of `config` on a free port of 127.0.0.1.
    pub async fn start(config: FakeConfig) -> Self {
        Self::start_at(config, ANY_PORT).await
    }

    /// Starts a server of `config` that listens to `address`.
    pub async fn start_at(config: FakeConfig, address: SocketAddr) -> Self {
        let listener = listen(address);
        let faults = Faults::new(config.request_latency, config.token_latency);
        let shared = Arc::new(Shared {
            engine: Arc::new(Engine::new(config)),
            activity: Arc::new(Activity::new()),
            faults: Arc::new(faults),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Self { shared, address, server: Mutex::new(Some(server)) }
    }

    /// Starts a server of the default configuration.
    pub async fn start_default() -> Self {
        Self::start(FakeConfig::default()).await
    }

    /// `http://127.0.0.1:port`, without a slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The settings it was started with.
    #[must_use]
    pub fn config(&self) -> &FakeConfig {
        &self.shared.engine.config
    }

    /// The model that would compute a token now: ask it for p.
    #[must_use]
    pub fn language(&self) -> Arc<LanguageModel> {
        self.shared.engine.language()
    }

    /// Its tokenizer.
    #[must_use]
    pub fn codec(&self) -> &TextCodec {
        &self.shared.engine.codec
    }

    /// Writes its `tokenizer.json` into `dir` and returns that file's path.
    pub fn write_tokenizer(&self, dir: &Path) -> PathBuf {
        self.codec().write(dir)
    }

    /// Every request so far, the oldest first, those that a fault swallowed included; none where the configuration keeps
    /// no records.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests so far whose path is `path`.
    #[must_use]
    pub fn requests_to(&self, path: &str) -> Vec<Received> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Connections that were opened to it so far: the number that the next one will have.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Replaces the weights by those labelled `version`, now, in the middle of whatever runs. The prefix cache stays.
    pub fn set_weights(&self, version: &str) {
        self.shared.engine.load_weights(version);
        self.shared.engine.set_version(version);
    }

    /// Empties the prefix cache.
    pub fn reset_prefix_cache(&self) {
        self.shared.engine.reset_prefix_cache();
    }

    /// Changes what the V1 runner returns for rows that it did not compute.
    pub fn set_garbage(&self, garbage: Garbage) {
        self.shared.engine.set_garbage(garbage);
    }

    /// Changes what each request, and each token, waits on tokio's clock.
    pub fn set_latency(&self, request: Duration, token: Duration) {
        self.shared.faults.set_latency(request, token);
    }

    /// The next `times` requests whose path contains `pattern` get `status`.
    pub fn fail_next(&self, pattern: &str, times: usize, status: StatusCode) {
        self.shared.faults.arm(pattern, times, Fault::Status(status, None));
    }

    /// The next `times` requests whose path contains `pattern` get 429 and are told to come back in `seconds`.
    pub fn throttle_next(&self, pattern: &str, times: usize, seconds: u64) {
        self.shared.faults.arm(pattern, times, Fault::Status(StatusCode::TOO_MANY_REQUESTS, Some(seconds)));
    }

    /// The next `times` requests whose path contains `pattern` lose their connection without a reply.
    pub fn disconnect_next(&self, pattern: &str, times: usize) {
        self.shared.faults.arm(pattern, times, Fault::Disconnect);
    }

    /// The replies to the next `times` requests whose path contains `pattern` are spoilt.
    pub fn spoil_next(&self, pattern: &str, times: usize, spoil: Spoil) {
        self.shared.faults.arm(pattern, times, Fault::Spoil(spoil));
    }

    /// The next stream whose path contains `pattern` loses its connection after `chunks` events.
    pub fn cut_stream_after(&self, pattern: &str, chunks: usize) {
        self.shared.faults.arm(pattern, 1, Fault::CutStream(chunks));
    }

    /// The next request whose path contains `pattern` hangs until the returned handle releases it.
    pub fn hang_next(&self, pattern: &str) -> Hang {
        self.hang_next_times(pattern, 1)
    }

    /// As [`FakeVllm::hang_next`], for `times` requests that one handle releases together.
    pub fn hang_next_times(&self, pattern: &str, times: usize) -> Hang {
        self.shared.faults.arm_hang(pattern, times, Fault::Hang)
    }

    /// The next stream whose path contains `pattern` stops after `chunks` events until the returned handle releases it.
    pub fn hang_stream_after(&self, pattern: &str, chunks: usize) -> Hang {
        self.shared.faults.arm_hang(pattern, 1, |hang| Fault::HangStream(chunks, hang))
    }

    /// Disarms every fault that is not spent.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// Requests that generate or hang now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.activity.running()
    }

    /// Requests whose client left before it had the whole reply.
    #[must_use]
    pub fn aborted(&self) -> usize {
        self.shared.activity.aborted()
    }

    /// Returns once at least `count` requests run.
    pub async fn wait_for_running(&self, count: usize) {
        self.shared.activity.wait_for_running(|&running| running >= count).await;
    }

    /// Returns once no request runs.
    pub async fn wait_until_idle(&self) {
        self.shared.activity.wait_for_running(|&running| running == 0).await;
    }

    /// Returns once `count` requests have been aborted since the start.
    pub async fn wait_for_aborts(&self, count: usize) {
        self.shared.activity.wait_for_aborts(count).await;
    }

    /// Dies: stops listening and drops every connection. Returns when the port is closed.
    pub async fn kill(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            self.shared.activity.die();
            server.abort();
            let _ = server.await;
            self.wait_until_idle().await;
        }
    }

    /// Comes back on the same port after a [`FakeVllm::kill`], with an empty prefix cache, no adapters and nothing paused. Weights,
    /// faults and records stay.
    pub async fn restart(&self) {
        self.kill().await;
        self.shared.engine.restart();
        let listener = listen(self.address);
        let server = tokio::spawn(server::serve(listener, Arc::clone(&self.shared)));
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }
}

impl Drop for FakeVllm {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.shared.activity.die();
            server.abort();
        }
    }
}
