//! A sidecar in this process, set up from the flags that a user would give.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use sidedraft::api::{Door, Limits, Sidecar, SidecarSettings, serve};
use sidedraft::config::ServeSettings;
use sidedraft::setup::Setup;
use sidedraft::telemetry::Metrics;
use sidedraft::tls::acceptor;
use sidedraft::upstream::Upstream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::fake_vllm::{ANY_PORT, listen};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeSettings,
}

/// A running sidecar. Dropping it leaves the listener to the runtime, which ends with the test.
pub struct Harness {
    pub url: String,
    pub sidecar: Sidecar,
    pub http: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Harness {
    /// A sidecar in front of `upstream`, once it has probed it.
    pub async fn start(upstream: &str, flags: &[&str]) -> Self {
        let harness = Self::start_with(upstream, flags, |setup| setup).await;
        harness.sidecar.ready().await;
        harness
    }

    /// A sidecar whose set-up the test may change, not yet probed.
    pub async fn start_with(upstream: &str, flags: &[&str], change: impl FnOnce(Setup) -> Setup) -> Self {
        let settings = settings(upstream, flags);
        let upstream = Upstream::new(&settings.target.upstream_options()).unwrap();
        let metrics = Metrics::register().unwrap();
        let setup = Setup::new(settings.target.clone(), settings.policy(), upstream.clone(), metrics.clone());
        let sidecar = Sidecar::start(SidecarSettings {
            upstream,
            builder: Arc::new(change(setup)),
            metrics,
            limits: Limits::from(&settings.limits),
            api_key: settings.door.api_key.clone(),
        });
        let listener = listen(ANY_PORT);
        let tls = settings.door.tls().map(|tls| acceptor(&tls).unwrap());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (shutdown, stopped) = oneshot::channel::<()>();
        let until = async move { drop(stopped.await) };
        let server = tokio::spawn(serve(sidecar.clone(), Door { listener, tls }, until, settings.drain_timeout));
        Self { url, sidecar, http: client(), shutdown: Some(shutdown), server }
    }

    /// Posts JSON to a path of the sidecar's.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> reqwest::Response {
        self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }

    /// Moves the weights as a trainer does.
    ///
    /// The fake's weights are drawn from the label.
    pub async fn update_weights(&self, label: u32) {
        let nothing = serde_json::json!({});
        let update = serde_json::json!({"update_info": {"weights": label}});
        let version = serde_json::json!({"new_version": label.to_string()});
        for (path, body) in [
            ("/pause?mode=keep", &nothing),
            ("/update_weights", &update),
            ("/update_weight_version", &version),
            ("/reset_prefix_cache", &nothing),
            ("/resume", &nothing),
        ] {
            success(self.post(path, body).await).await;
        }
    }

    /// The JSON of a successful completion.
    pub async fn complete(&self, body: &serde_json::Value) -> serde_json::Value {
        success(self.post("/v1/completions", body).await).await
    }

    /// The sum of the samples of a metric whose labels contain `labels`, from the sidecar's own registry.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.sidecar.metrics().encode();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(labels);
        page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Tells the sidecar to stop, as SIGTERM does, and waits until it has.
    pub async fn stop(mut self) {
        drop(self.shutdown.take());
        self.server.await.unwrap();
    }
}

/// The settings that flags amount to. Tests are about what happens when drafts are verified, so unless the flags say
/// when to speculate, it is wherever there is a draft, with a fixed length.
pub fn settings(upstream: &str, flags: &[&str]) -> ServeSettings {
    let fixed = ["sidedraft", "--upstream", upstream, "--listen", "127.0.0.1:0"];
    let says = |name: &str| flags.contains(&name);
    let always: &[&str] = if says("--speculate") { &[] } else { &["--speculate", "always"] };
    let length: &[&str] = if says("--speculate") || says("--draft-tokens") { &[] } else { &["--draft-tokens", "4"] };
    Flags::try_parse_from(fixed.iter().chain(always).chain(length).chain(flags)).unwrap().serve
}

/// An HTTP client that gives up rather than hang a test.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(240)).no_proxy().build().unwrap()
}

/// The JSON of a successful reply.
pub async fn success(response: reqwest::Response) -> serde_json::Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}
