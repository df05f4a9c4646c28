use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use serde_json::json;

use super::support::fake_vllm::FakeVllm;
use super::{COMPLETIONS, GENERATE, ids, ok, post};

#[tokio::test]
async fn a_client_that_leaves_a_hanging_request_aborts_it() {
    let fake = FakeVllm::start_default().await;
    let hang = fake.hang_next(COMPLETIONS);
    let body = json!({"prompt": [1]});
    match select(pin!(post(&fake, COMPLETIONS, &body)), pin!(hang.reached())).await {
        Either::Left(_) => panic!("the request hangs"),
        // Dropping the other half drops the client and its connection.
        Either::Right(_) => {}
    }
    fake.wait_for_aborts(1).await;
    fake.wait_until_idle().await;
    assert_eq!((fake.aborted(), fake.running()), (1, 0));
}

#[tokio::test]
async fn a_client_that_drops_a_stream_aborts_it_and_leaves_its_tokens_in_the_cache() {
    let fake = FakeVllm::start_default().await;
    let _hang = fake.hang_stream_after(COMPLETIONS, 30);
    let prompt = ids(10, 1);
    let body = json!({"prompt": prompt, "max_tokens": 60, "ignore_eos": true, "stream": true, "seed": 2});
    let reply = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&body).send().await.unwrap();
    let mut stream = reply.bytes_stream();
    let mut read = 0;
    while read < 30 {
        read += String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()).matches("data: ").count();
    }
    assert_eq!(fake.running(), 1);
    drop(stream);
    fake.wait_for_aborts(1).await;

    let same = json!({"prompt": prompt, "max_tokens": 25, "ignore_eos": true, "seed": 2, "return_token_ids": true});
    let reply = ok(&fake, COMPLETIONS, same).await;
    let output: Vec<u32> = serde_json::from_value(reply["choices"][0]["token_ids"].clone()).unwrap();
    let score = json!({"token_ids": ([&prompt[..], &output].concat()), "sampling_params": {"max_tokens": 1}});
    let reply = ok(&fake, GENERATE, score).await;
    assert_eq!(reply["usage"]["prompt_tokens_details"]["cached_tokens"], 32);
}

#[tokio::test]
async fn an_answered_request_is_no_abort() {
    let fake = FakeVllm::start_default().await;
    for stream in [false, true] {
        ok_or_stream(&fake, stream).await;
    }
    fake.wait_until_idle().await;
    assert_eq!(fake.aborted(), 0);
}

async fn ok_or_stream(fake: &FakeVllm, stream: bool) {
    let body = json!({"prompt": [1], "stream": stream});
    let reply = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&body).send().await.unwrap();
    reply.bytes().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_refuses_connections_until_it_is_restarted() {
    let fake = FakeVllm::start_default().await;
    ok(&fake, COMPLETIONS, json!({"prompt": ids(20, 1)})).await;
    let address = fake.address();
    fake.kill().await;
    assert!(reqwest::get(fake.url() + "/health").await.is_err());
    fake.restart().await;
    assert_eq!(fake.address(), address);
    let reply = ok(&fake, COMPLETIONS, json!({"prompt": ids(20, 1)})).await;
    assert_eq!(reply["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "a new process has an empty cache");
}

#[tokio::test]
async fn a_kill_breaks_what_is_running_and_counts_no_abort() {
    let fake = FakeVllm::start_default().await;
    let hang = fake.hang_next(COMPLETIONS);
    let request = reqwest::Client::new().post(fake.url() + COMPLETIONS).json(&json!({"prompt": [1]}));
    let (reply, ()) = tokio::join!(request.send(), async {
        hang.reached().await;
        fake.kill().await;
    });
    assert!(reply.is_err());
    assert_eq!((fake.running(), fake.aborted()), (0, 0));
}
