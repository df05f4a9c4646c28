//! Servers that come back as something else.

use super::fetch::succeeds;
use super::load::{Answer, Load};
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, Server, until};
use super::spawn::Spec;

const CLIENTS: usize = 12;
const TOKENS: usize = 16;

pub const ROWS: &[Row] = &[
    Row {
        name: "other_weights",
        kind: Kind::Fast,
        fault: "`kill -9` under 12 rollouts, and a restart with other weights under the same name",
        must: "a 502, or one as a stream's last event; then answers that are right under the new weights",
        run: || Box::pin(other_weights()),
    },
    Row {
        name: "other_model",
        kind: Kind::Fast,
        fault: "another model, of another vocabulary, behind the same URL from one moment to the next",
        must: "within the 5 seconds of a health check, the new server's own answers",
        run: || Box::pin(other_model()),
    },
];

fn change(server: &mut Server, spec: Spec) {
    if let Server::There(_, old) = server {
        *old = spec;
    }
}

async fn other_weights() -> Seen {
    let spec = Spec { latency: 2, ..Spec::default() };
    let mut scene = Plan::there(spec.clone()).start_warm().await;
    let mut tally = Tally::default();
    tally.step("under it");
    let load = scene.load(120);
    let answers = scene.during(&load, CLIENTS, async |scene| scene.server.down().await).await;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Error(502) | Answer::ErrorEvent(502))), "{answers:?}");
    tally.add_all(answers);
    let new = Spec { weights: "trained".to_owned(), latency: 0, ..spec };
    let language = new.language();
    change(&mut scene.server, new);
    scene.server.up().await;
    until("the health check finds it", async || succeeds(scene.url(), "/health").await).await;
    scene.ready().await;
    tally.step("after it");
    let load = Load { languages: vec![("trained", language)], ..scene.load(TOKENS) };
    let speculated = scene.metric("sidedraft_requests_total", "outcome=\"speculated\"").await;
    let answers = load.many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    assert!(scene.metric("sidedraft_requests_total", "outcome=\"speculated\"").await > speculated);
    tally.add_all(answers);
    scene.end(tally).await
}

async fn other_model() -> Seen {
    let mut scene = Plan::there(Spec::default()).start_warm().await;
    let mut tally = Tally::default();
    let new = Spec { vocabulary: 48, model: "another-model".to_owned(), ..Spec::default() };
    let language = new.language();
    scene.server.down().await;
    change(&mut scene.server, new);
    scene.server.up().await;
    until("the change is found", async || scene.metric("sidedraft_upstream_changes_total", "").await > 0.5).await;
    scene.ready().await;
    let forwarded = "outcome=\"forwarded\",reason=\"tokenizer\"";
    let before = scene.metric("sidedraft_requests_total", forwarded).await;
    let load = Load { languages: vec![("another", language)], ..scene.load(TOKENS) };
    let answers = load.many(CLIENTS).await;
    scene.note().await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.step("after it");
    tally.add_all(answers);
    let count = scene.metric("sidedraft_requests_total", forwarded).await - before;
    assert!((count - CLIENTS as f64).abs() < 0.5, "{count} were forwarded for the tokenizer that does not fit");
    scene.end(tally).await
}
