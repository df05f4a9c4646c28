//! A mistake in the sidecar is an error of the request that met it, counted, and nobody else's.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use sidedraft::api::readiness::BuildFuture;
use sidedraft::api::{EngineBuilder, Limits, Readiness, Sidecar, SidecarSettings};
use sidedraft::telemetry::Metrics;
use sidedraft::upstream::Upstream;

use super::compare::same_answer;
use super::drafters::{drawing, often_right};
use super::replies::{ROUTES, asking, with};
use super::rig::{Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::settings;
use super::support::planted_panics::{Fuse, PanickingFactory, PanickingRule};
use super::trainer::until;

fn panics(rig: &Rig, place: &str) -> f64 {
    rig.metric("sidedraft_panics_total", &format!("\"{place}\""))
}

fn is_internal_error(body: &[u8]) {
    let error: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["type"]), (&json!(500), &json!("InternalServerError")));
    assert!(error["error"]["message"].is_string() && error["error"]["param"].is_null(), "{error}");
}

async fn nothing_is_left(rig: &Rig) {
    rig.fake.wait_until_idle().await;
    until(|| rig.metric("sidedraft_rollouts_running", "") < 0.5).await;
    assert!(rig.outcome("cancelled") < 0.5, "nobody has left");
}

#[tokio::test]
async fn a_handler_that_panics_answers_with_a_500_and_its_connection_goes_on() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let (fuse, drafters) = (Fuse::default(), often_right(&config.language));
    let rig = Plan::new(config).drafters(Arc::new(PanickingFactory(fuse.clone(), drafters))).start().await;
    fuse.arm(true);
    for route in ROUTES {
        for stream in [false, true] {
            let (status, body) = rig.through(route, &with(asking(route, &json!({})), &json!({"stream": stream}))).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{route}");
            is_internal_error(&body);
        }
    }
    assert!((panics(&rig, "handler") - 6.0).abs() < 1e-9);
    assert!((rig.outcome("failed") - 6.0).abs() < 1e-9);
    assert!(rig.metric("sidedraft_connections", "") < 1.5, "one connection has served them all");
    nothing_is_left(&rig).await;
    fuse.arm(false);
    same_answer(&rig, &greedy(12)).await;
}

#[tokio::test]
async fn a_rollout_that_panics_is_a_500_or_the_last_event_of_its_stream() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let (fuse, drafters) = (Fuse::default(), drawing(&config.language));
    let rig = Plan::new(config).drafters(drafters).rule(Arc::new(PanickingRule(fuse.clone()))).start().await;
    fuse.arm(true);
    let mut body = greedy(12);
    body["temperature"] = json!(1);
    let (status, reply) = rig.through("/v1/completions", &body).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    is_internal_error(&reply);
    body["stream"] = json!(true);
    let text = rig.sidecar.post("/v1/completions", &body).await.text().await.unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"), "{text}");
    is_internal_error(events[events.len() - 2].strip_prefix("data: ").unwrap().as_bytes());
    assert!(events.len() > 2, "the first token came before");
    assert!((panics(&rig, "rollout") - 2.0).abs() < 1e-9);
    assert!((rig.outcome("failed") - 2.0).abs() < 1e-9);
    nothing_is_left(&rig).await;
    // No turn was left open: a request that waits for the rollouts under way finds none.
    for path in ["/pause?mode=wait", "/resume"] {
        assert_eq!(rig.through(path, &json!({})).await.0, StatusCode::OK);
    }
    fuse.arm(false);
    assert_eq!(rig.through("/v1/completions", &greedy(12)).await.0, StatusCode::OK);
}

/// A builder that panics the first time.
struct Builder(Fuse);

impl EngineBuilder for Builder {
    fn build(&self) -> BuildFuture<'_> {
        Box::pin(async {
            self.0.step_once();
            Ok(Readiness::ForwardOnly("built"))
        })
    }
}

#[tokio::test]
async fn a_probe_that_panics_is_made_again() {
    let fake = FakeVllm::start_default().await;
    let settings = settings(&fake.url(), &[]);
    let (metrics, fuse) = (Metrics::register().unwrap(), Fuse::default());
    fuse.arm(true);
    let sidecar = Sidecar::start(SidecarSettings {
        upstream: Upstream::new(&settings.target.upstream_options()).unwrap(),
        builder: Arc::new(Builder(fuse)),
        metrics: metrics.clone(),
        limits: Limits::from(&settings.limits),
        api_key: None,
    });
    sidecar.ready().await;
    assert!(metrics.encode().contains("sidedraft_panics_total{place=\"probe\"} 1\n"), "{}", metrics.encode());
}
