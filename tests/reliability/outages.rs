//! Servers that die, stand still or are slow.

use std::time::Duration;

use rustix::process::Signal;

use super::fetch::{fetch, succeeds};
use super::load::Answer;
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, until};
use super::spawn::Spec;

const CLIENTS: usize = 12;
/// So many that a rollout is under way for a while.
const LONG: usize = 120;

pub const ROWS: &[Row] = &[
    Row {
        name: "server_killed",
        kind: Kind::Fast,
        fault: "`kill -9` of the server under 12 rollouts",
        must: "a 502, or one as a stream's last event; the same at once while it is down; right answers once it is back",
        run: || Box::pin(killed()),
    },
    Row {
        name: "server_stopped",
        kind: Kind::Fast,
        fault: "SIGSTOP of the server under 12 rollouts, SIGCONT once `/health` says 503",
        must: "nothing but the wait",
        run: || Box::pin(stopped()),
    },
    Row {
        name: "server_stopped_too_long",
        kind: Kind::Fast,
        fault: "the same, for longer than `--read-timeout`",
        must: "a 502, or one as a stream's last event; right answers after SIGCONT",
        run: || Box::pin(stopped_too_long()),
    },
    Row {
        name: "server_slow",
        kind: Kind::Fast,
        fault: "50 ms a request and 10 ms a token",
        must: "right answers",
        run: || Box::pin(slow()),
    },
];

/// Whether these are errors of the server's absence.
fn are_bad_gateways(answers: &[Answer]) -> bool {
    answers.iter().all(|answer| matches!(answer, Answer::Error(502) | Answer::ErrorEvent(502)))
}

async fn killed() -> Seen {
    let mut scene = Plan::there(Spec { latency: 2, ..Spec::default() }).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(LONG);
    let answers = scene.during(&load, CLIENTS, async |scene| scene.server.down().await).await;
    assert!(are_bad_gateways(&answers), "{answers:?}");
    tally.add_all(answers);
    tally.step("while it is down");
    let answers = scene.load(8).many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Error(502)), "{answers:?}");
    tally.add_all(answers);
    scene.server.up().await;
    // The health check, which asks it all the same, ends the breaker's pause.
    until("the health check finds it", async || succeeds(scene.url(), "/health").await).await;
    scene.ready().await;
    tally.step("once it is back");
    let answers = scene.load(8).many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}

async fn stopped() -> Seen {
    let mut scene = Plan::there(Spec { latency: 2, ..Spec::default() }).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(LONG);
    let answers = scene.during(&load, CLIENTS, async |scene| {
        scene.fake_process().signal(Signal::STOP);
        let (status, _) = fetch(scene.url(), "/health").await.unwrap();
        assert_eq!(status, 503);
        scene.fake_process().signal(Signal::CONT);
    });
    let answers = answers.await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}

async fn stopped_too_long() -> Seen {
    let spec = Spec { latency: 2, ..Spec::default() };
    let mut scene = Plan::there(spec).flags("--read-timeout 0.3").start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(LONG);
    let answers = scene.during(&load, CLIENTS, async |scene| scene.fake_process().signal(Signal::STOP)).await;
    assert!(are_bad_gateways(&answers), "{answers:?}");
    tally.add_all(answers);
    scene.fake_process().signal(Signal::CONT);
    until("the health check finds it", async || scene.metric("sidedraft_upstream_ready", "").await > 0.5).await;
    scene.ready().await;
    tally.step("after SIGCONT");
    let answers = scene.load(8).many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}

async fn slow() -> Seen {
    let mut scene = Plan::new(0).start_warm().await;
    let mut tally = Tally::default();
    scene.fake().set_latency(Duration::from_millis(50), Duration::from_millis(10));
    let load = scene.load(16);
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}
