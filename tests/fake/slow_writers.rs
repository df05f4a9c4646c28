//! Clients that do not send what they have begun to send.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::forward_wire::raw;
use super::replies::{CHAT, asking};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig};
use super::trainer::until;

async fn rig(flags: &str) -> Rig {
    Plan::default().flags(flags).start().await
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_ends_its_connection() {
    let rig = rig("--header-timeout 0.1").await;
    for begun in ["", "POST /v1/completions HT", "GET /health HTTP/1.1\r\nHost: h\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(rig.sidecar.url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        until(|| rig.metric("sidedraft_connections", "") > 0.5).await;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        assert!(!reply.starts_with(b"HTTP/1.1 2"));
        until(|| rig.metric("sidedraft_connections", "") < 0.5).await;
    }
    assert!(
        rig.fake.requests().iter().all(|request| ["/health", "/v1/models"].contains(&request.path.as_str())),
        "the sidecar's own"
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_is_408() {
    let rig = rig("--body-timeout 0.1").await;
    for path in [COMPLETIONS, CHAT, GENERATE, "/v1/embeddings", "/update_weights", "/abort_requests"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n");
        for rest in ["Content-Length: 10\r\n\r\n{\"a\"", "Transfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n"] {
            let reply = raw(&rig.sidecar.url, &format!("{head}{rest}")).await;
            assert!(reply.starts_with("HTTP/1.1 408 "), "{path}: {reply}");
            let error: Value = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(
                (&error["error"]["type"], &error["error"]["code"]),
                (&json!("RequestTimeoutError"), &json!(408))
            );
        }
    }
    rig.fake.wait_until_idle().await;
    assert_eq!(rig.through(COMPLETIONS, &asking(COMPLETIONS, &json!({}))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_waits_for_its_answer_is_not_slow() {
    let rig = rig("--header-timeout 0.05 --body-timeout 0.05").await;
    let hang = rig.fake.hang_next(COMPLETIONS);
    let body = asking(COMPLETIONS, &json!({"max_tokens": 4}));
    // Another client's connection runs into the timeout meanwhile.
    let (reply, ()) = tokio::join!(rig.through(COMPLETIONS, &body), async {
        hang.reached().await;
        assert!(!raw(&rig.sidecar.url, "GET /slow").await.starts_with("HTTP/1.1 2"));
        hang.release();
    });
    assert_eq!(reply.0, StatusCode::OK);
}
