//! How the sidecar's own calls go over the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use serde_json::json;

use super::rig::{COMPLETIONS, Plan, Rig, STRATEGIES, endless, greedy};
use super::support::fake_vllm::FakeConfig;

async fn by(strategy: &str) -> Rig {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = super::drafters::often_right(&config.language);
    Plan::new(config).strategy(strategy).drafters(drafters).start().await
}

#[tokio::test]
async fn a_body_that_is_sent_in_pieces_says_how_long_it_is() {
    for strategy in STRATEGIES {
        let rig = by(strategy).await;
        rig.complete(&greedy(20)).await;
        let requests = rig.fake.requests();
        assert!(requests.len() > 4, "{}", requests.len());
        for request in requests.iter().filter(|request| !request.body.is_empty()) {
            assert_eq!(request.headers[CONTENT_LENGTH].to_str().unwrap(), request.body.len().to_string());
            assert!(!request.headers.contains_key(TRANSFER_ENCODING));
        }
    }
}

/// The connections by which completions were asked for since the last time, and how many they were.
fn used(rig: &Rig) -> (BTreeSet<usize>, usize) {
    let requests = rig.fake.requests_to(COMPLETIONS);
    rig.fake.forget_requests();
    (requests.iter().map(|request| request.connection).collect(), requests.len())
}

#[tokio::test]
async fn rounds_at_once_use_no_more_connections_than_there_are_rollouts() {
    const ROLLOUTS: usize = 8;
    for strategy in ["prompt-logprobs", "fan-out"] {
        let rig = by(strategy).await;
        let body = greedy(40);
        for _ in 0..3 {
            join_all((0..ROLLOUTS).map(|_| rig.complete(&body))).await;
        }
        let (connections, requests) = used(&rig);
        assert!(requests > 200, "{requests}");
        assert!(connections.len() <= ROLLOUTS, "{strategy}: {connections:?} for {requests} requests");
    }
}

/// vLLM's own limit is 5 seconds.
#[tokio::test]
async fn a_connection_that_the_server_is_about_to_close_is_not_used() {
    let rig = by("fan-out").await;
    let speculated = greedy(10);
    let forwarded = json!({"prompt": [1], "max_tokens": 1, "echo": true});
    for (kind, body) in [("speculated", &speculated), ("forwarded", &forwarded)] {
        let opens_after = async |idle: f64| {
            let opened = rig.fake.connections();
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs_f64(idle)).await;
            tokio::time::resume();
            assert_eq!(rig.through(COMPLETIONS, body).await.0, http::StatusCode::OK);
            let (used, _) = used(&rig);
            let new = used.iter().filter(|connection| **connection >= opened).count();
            (new > 0, new == used.len())
        };
        opens_after(0.0).await;
        assert_eq!(opens_after(3.0).await, (false, false), "{kind}: still open on the other side");
        assert_eq!(opens_after(4.5).await, (true, true), "{kind}");
        assert!(rig.outcome(kind) > 2.0);
    }
}
