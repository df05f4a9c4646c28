//! A wall clock that jumps.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::load::Answer;
use super::rig::greedy;
use super::row::{Kind, Row, Seen, Tally};
use super::scene::Plan;

const CLIENTS: usize = 12;

pub const ROWS: &[Row] = &[Row {
    name: "clock_jumps",
    kind: Kind::Fast,
    fault: "the wall clock a day ahead, then a day back, under 12 rollouts",
    must: "right answers; only `created` shows it",
    run: || Box::pin(jumps()),
}];

const DAY: i64 = 86_400;

/// The library that makes a program's clock jump.
fn library(folder: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reliability/clock.c");
    let library = folder.join("clock.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(built.success());
    library
}

async fn jumps() -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let jump = folder.path().join("jump");
    std::fs::write(&jump, "0").unwrap();
    let variable = |name: &str, path: &Path| (name.to_owned(), path.to_str().unwrap().to_owned());
    let variables = [variable("LD_PRELOAD", &library(folder.path())), variable("JUMP_FILE", &jump)];
    let mut scene = Plan::new(2).command(&[], &variables).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(80);
    for days in [1, -1] {
        let answers = scene.during(&load, CLIENTS, async |_| std::fs::write(&jump, (days * DAY).to_string()).unwrap());
        let answers = answers.await;
        assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
        tally.step(if days > 0 { "ahead" } else { "back" });
        tally.add_all(answers);
        let http = super::support::harness::client();
        let reply = http.post(format!("{}/v1/completions", scene.url())).json(&greedy(4)).send().await.unwrap();
        let created = reply.json::<Value>().await.unwrap()["created"].as_i64().unwrap();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        assert!((created - now - days * DAY).abs() < 60, "the clock did not jump");
    }
    scene.end(tally).await
}
