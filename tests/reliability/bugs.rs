//! Mistakes in the sidecar itself.

use std::sync::Arc;

use super::drafters::{drawing, often_right};
use super::load::Answer;
use super::rig::endless;
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, Scene};
use super::support::harness::client;
use super::support::planted_panics::{Fuse, PanickingFactory, PanickingRule};

const CLIENTS: usize = 12;
const TOKENS: usize = 16;

pub const ROWS: &[Row] = &[
    Row {
        name: "draft_thread_panics",
        kind: Kind::Fast,
        fault: "a panic of the draft model's thread under 12 rollouts",
        must: "right answers, and one failure counted",
        run: || Box::pin(draft_thread()),
    },
    Row {
        name: "handler_panics",
        kind: Kind::Fast,
        fault: "a panic in the handler of each of 12 requests",
        must: "a 500 in OpenAI's shape, counted; right answers afterwards",
        run: || Box::pin(handler()),
    },
    Row {
        name: "rollout_panics",
        kind: Kind::Fast,
        fault: "a panic in the middle of each of 12 rollouts",
        must: "a 500, or one as a stream's last event, counted; right answers afterwards",
        run: || Box::pin(rollout()),
    },
];

async fn panics(scene: &Scene, place: &str) -> f64 {
    scene.metric("sidedraft_panics_total", &format!("\"{place}\"")).await
}

async fn right_afterwards(scene: &mut Scene, tally: &mut Tally) {
    tally.step("after it");
    let load = scene.load(TOKENS);
    let answers = load.many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
}

async fn draft_thread() -> Seen {
    let mut scene = Plan::new(2).start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(80);
    let answers = scene.during(&load, CLIENTS, async |scene| scene.model.as_ref().unwrap().panic()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    let failures = scene.metric("sidedraft_draft_model_failures_total", "").await;
    assert!((failures - 1.0).abs() < 0.5, "{failures} failures");
    right_afterwards(&mut scene, &mut tally).await;
    scene.end(tally).await
}

async fn handler() -> Seen {
    let fuse = Fuse::default();
    let factory = PanickingFactory(fuse.clone(), often_right(&endless()));
    let mut scene = Plan::new(1).drafters(Arc::new(factory)).start_warm().await;
    let mut tally = Tally::default();
    fuse.arm(true);
    let (load, http) = (scene.load(TOKENS), client());
    for number in 0..CLIENTS {
        let answer = load.one(&http, number).await;
        scene.note().await;
        assert_eq!(answer, Answer::Error(500));
        tally.add(answer);
    }
    drop(http);
    assert!((panics(&scene, "handler").await - CLIENTS as f64).abs() < 0.5);
    fuse.arm(false);
    right_afterwards(&mut scene, &mut tally).await;
    scene.end(tally).await
}

async fn rollout() -> Seen {
    let fuse = Fuse::default();
    let plan = Plan::new(1).drafters(drawing(&endless())).rule(Arc::new(PanickingRule(fuse.clone())));
    let mut scene = plan.start_warm().await;
    let mut tally = Tally::default();
    let load = scene.load(80);
    let answers = scene.during(&load, CLIENTS, async |_| fuse.arm(true)).await;
    let fine = |answer: &Answer| matches!(answer, Answer::Error(500) | Answer::ErrorEvent(500));
    assert!(answers.iter().all(fine), "{answers:?}");
    tally.add_all(answers);
    assert!((panics(&scene, "rollout").await - CLIENTS as f64).abs() < 0.5);
    fuse.arm(false);
    right_afterwards(&mut scene, &mut tally).await;
    scene.end(tally).await
}
