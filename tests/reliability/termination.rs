//! A sidecar that is told to stop, and one that runs out of file descriptors.

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::net::TcpStream;

use super::load::Answer;
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, soon, until};
use super::support::harness::client;

const CLIENTS: usize = 24;

pub const ROWS: &[Row] = &[
    Row {
        name: "terminated",
        kind: Kind::Fast,
        fault: "SIGTERM under 24 rollouts that have time to finish",
        must: "right answers; nobody else is let in; it ends with status 0",
        run: || Box::pin(terminated()),
    },
    Row {
        name: "terminated_too_long",
        kind: Kind::Fast,
        fault: "SIGTERM under 24 rollouts that do not finish within `--drain-timeout 3`",
        must: "a 503, or one as a stream's last event, before the deadline; it ends with status 0",
        run: || Box::pin(terminated_too_long()),
    },
    Row {
        name: "out_of_files",
        kind: Kind::Fast,
        fault: "300 idle clients of a sidecar that may open 96 files",
        must: "an answer over a connection that is there, right or a 502; right answers once they have left",
        run: || Box::pin(out_of_files()),
    },
];

async fn terminated() -> Seen {
    let mut scene = Plan::new(3).flags("--drain-timeout 60").command(&[], &[]).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(100);
    let answers = scene.during(&load, CLIENTS, async |scene| {
        scene.process().signal(Signal::TERM);
        let address = scene.url().strip_prefix("http://").unwrap().to_owned();
        // Connections that the kernel took before are closed with the listener.
        until("nobody is let in", async || TcpStream::connect(&address).await.is_err()).await;
    });
    let answers = answers.await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    assert!(scene.process().ended().await.success());
    scene.ended(tally).await
}

async fn terminated_too_long() -> Seen {
    let mut scene = Plan::new(2).flags("--drain-timeout 3").command(&[], &[]).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(200);
    let mut hang = None;
    let answers = scene.during(&load, CLIENTS, async |scene| {
        // One after the other they come to a call that is not answered.
        hang = Some(scene.fake().hang_next_times("/", 1_000_000));
        scene.process().signal(Signal::TERM);
    });
    let answers = answers.await;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Error(503) | Answer::ErrorEvent(503))), "{answers:?}");
    tally.add_all(answers);
    assert!(scene.process().ended().await.success());
    scene.fake().clear_faults();
    hang.unwrap().release();
    scene.ended(tally).await
}

async fn out_of_files() -> Seen {
    const FILES: &str = "ulimit -n 96 && exec \"$@\"";
    let plan = Plan::new(1).flags("--header-timeout 60").command(&["sh", "-c", FILES, "sh"], &[]);
    let mut scene = plan.start_warm().await;
    let mut tally = Tally::default();
    let address = scene.url().strip_prefix("http://").unwrap().to_owned();
    let kept = client();
    let live = format!("{}/sidedraft/live", scene.url());
    assert!(kept.get(&live).send().await.unwrap().status().is_success());
    let idle = soon("they connect", join_all((0..300).map(|_| TcpStream::connect(&address)))).await;
    let process = scene.process().pid.to_string();
    let files = || std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    until("it has no file left", async || files() >= 96).await;
    tally.step("meanwhile");
    let load = scene.load(8);
    for number in 0..4 {
        let answer = load.one(&kept, number * 3).await;
        assert!(matches!(answer, Answer::Right | Answer::Error(502)), "{answer}");
        tally.add(answer);
    }
    drop((idle, kept));
    tally.step("after it");
    until("there are files again", async || files() < 48).await;
    // The connections that could not be opened may have the breaker hold others back for a moment.
    until("one gets through", async || load.one(&client(), 0).await == Answer::Right).await;
    let answers = scene.during(&scene.load(60), 6, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}
