//! Clients that are slow, ask for too much, or vanish.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::Answer;
use super::rig::{COMPLETIONS, GENERATE};
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, Scene, soon, until};
use super::support::harness::client;
use super::trainer::CHAT;

const CLIENTS: usize = 12;
const TOKENS: usize = 16;

pub const ROWS: &[Row] = &[
    Row {
        name: "slowloris",
        kind: Kind::Fast,
        fault: "200 clients that begin a head or a body and say no more, beside 12 that want rollouts",
        must: "a close, or a 408, after `--header-timeout` or `--body-timeout`; right answers for the 12",
        run: || Box::pin(slowloris()),
    },
    Row {
        name: "oversized_bodies",
        kind: Kind::Fast,
        fault: "bodies beyond `--max-body-bytes`, announced or in chunks, on every kind of route",
        must: "a 413, and nothing of it at the server",
        run: || Box::pin(oversized()),
    },
    Row {
        name: "vanishing_clients",
        kind: Kind::Slow,
        fault: "1,000 clients that leave at any moment between their request and their last token, beside 12 that stay",
        must: "right answers for the 12",
        run: || Box::pin(vanishing()),
    },
];

fn address(scene: &Scene) -> &str {
    scene.url().strip_prefix("http://").unwrap()
}

/// Status and error of a reply as it came, or nothing where the connection closed without one.
fn status_of(reply: &str) -> Option<u16> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let error: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {reply}"));
    assert_eq!(error["error"]["code"], status, "{reply}");
    Some(status)
}

/// What a client gets that sends `begun` and waits.
async fn wait_for_reply(address: &str, begun: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(begun.as_bytes()).await.unwrap();
    let mut reply = String::new();
    soon("its end", stream.read_to_string(&mut reply)).await.unwrap();
    status_of(&reply).map_or(Answer::Broken, Answer::Error)
}

async fn slowloris() -> Seen {
    const SLOW: usize = 200;
    let mut scene = Plan::new(1).flags("--header-timeout 0.5 --body-timeout 0.5").start_warm().await;
    let mut tally = Tally::default();
    let (to, body) = (address(&scene).to_owned(), "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{");
    let begun = move |number: usize| match number % 4 {
        0 => String::new(),
        1 => "POST /v1/completions HTTP/1.1\r\nHost: h\r\nX-Slow: ".to_owned(),
        2 => format!("POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\n{body}"),
        _ => format!("POST /v1/embeddings HTTP/1.1\r\nHost: h\r\n{body}"),
    };
    let slow = tokio::spawn(async move {
        join_all((0..SLOW).map(|number| {
            let (to, begun) = (to.clone(), begun(number));
            async move { (number % 4 < 2, wait_for_reply(&to, &begun).await) }
        }))
        .await
    });
    until("they are there", async || scene.metric("sidedraft_connections", "").await >= SLOW as f64).await;
    let load = scene.load(TOKENS);
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.step("the 12");
    tally.add_all(answers);
    tally.step("the 200");
    for (is_head, answer) in slow.await.unwrap() {
        assert_eq!(answer, if is_head { Answer::Broken } else { Answer::Error(408) });
        tally.add(if is_head { "closed connection".to_owned() } else { answer.to_string() });
    }
    scene.end(tally).await
}

async fn oversized() -> Seen {
    const ROUTES: [&str; 5] = [COMPLETIONS, CHAT, GENERATE, "/v1/embeddings", "/update_weights"];
    let mut scene = Plan::new(1).flags("--max-body-bytes 65536").start_warm().await;
    let mut tally = Tally::default();
    let bodies = ROUTES.iter().flat_map(|route| {
        let head = format!("POST {route} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n");
        let chunk = format!("4000\r\n{}\r\n", "a".repeat(0x4000));
        [
            format!("{head}Content-Length: 65537\r\n\r\n"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(5)),
        ]
    });
    let address = address(&scene).to_owned();
    for begun in bodies {
        let answer = wait_for_reply(&address, &begun).await;
        assert_eq!(answer, Answer::Error(413), "{}", begun.lines().next().unwrap());
        tally.add(answer);
        scene.note().await;
    }
    let load = scene.load(TOKENS);
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.step("others");
    tally.add_all(answers);
    scene.end(tally).await
}

async fn vanishing() -> Seen {
    const MANY: usize = 1000;
    let mut scene = Plan::new(1).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(24);
    let mut rng = StdRng::seed_from_u64(17);
    let patience: Vec<usize> = (0..MANY).map(|_| rng.random_range(0..12)).collect();
    let leaving = {
        let (load, http) = (load.clone(), client());
        tokio::spawn(async move {
            join_all(patience.iter().enumerate().map(|(number, events)| load.vanish(&http, number, *events)))
                .await
                .len()
        })
    };
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    assert_eq!(leaving.await.unwrap(), MANY);
    let cancelled = scene.metric("sidedraft_requests_total", "outcome=\"cancelled\"").await;
    assert!(cancelled > 500.0, "{cancelled} were cancelled");
    scene.end(tally).await
}
