//! A server that cannot be reached is not asked by everybody, and is asked again when it is back.

use http::StatusCode;
use serde_json::json;

use super::rig::{COMPLETIONS, Rig, greedy};
use super::trainer::until;

const HELD: &str = "none is tried for a moment";

#[tokio::test]
async fn where_no_connection_can_be_opened_none_is_tried_until_one_can() {
    let rig = Rig::usual().await;
    rig.fake.kill().await;
    for (path, body) in [("/v1/embeddings", json!({})), (COMPLETIONS, greedy(4))] {
        let mut held = 0;
        for _ in 0..40 {
            let (status, reply) = rig.through(path, &body).await;
            assert_eq!(status, StatusCode::BAD_GATEWAY);
            let reply = String::from_utf8(reply.to_vec()).unwrap();
            assert!(reply.contains(&rig.fake.url()), "{reply}");
            held += usize::from(reply.contains(HELD));
        }
        assert!(held > 0, "{path}");
    }
    until(|| rig.metric("sidedraft_breaker_openings_total", "") > 0.5).await;
    rig.fake.restart().await;
    rig.sidecar.sidecar.ready().await;
    // The health check that found it has ended the pause.
    assert_ne!(rig.through("/v1/embeddings", &json!({})).await.0, StatusCode::BAD_GATEWAY);
    rig.complete(&greedy(4)).await;
}

#[tokio::test]
async fn a_server_that_breaks_connections_off_is_still_asked() {
    let rig = Rig::usual().await;
    rig.fake.disconnect_next("/v1/embeddings", 30);
    for _ in 0..30 {
        let (status, reply) = rig.through("/v1/embeddings", &json!({})).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(!String::from_utf8(reply.to_vec()).unwrap().contains(HELD));
    }
    assert_eq!(rig.fake.requests_to("/v1/embeddings").len(), 30, "each was sent");
    rig.complete(&greedy(4)).await;
}
