//! Servers whose replies are not what they should be.

use http::StatusCode;
use serde_json::Value;

use super::load::Answer;
use super::rig::{COMPLETIONS, GENERATE};
use super::row::{Kind, Row, Seen, Tally};
use super::scene::{Plan, Scene};
use super::support::fake_vllm::{FakeConfig, Garbage, Runner, Spoil};

const CLIENTS: usize = 12;
const TOKENS: usize = 16;
/// As often as it is asked.
const ALWAYS: usize = 1_000_000;

pub const ROWS: &[Row] = &[
    Row {
        name: "server_throttles",
        kind: Kind::Fast,
        fault: "429 to two calls of each route; then to every call",
        must: "right answers; then the server's own 429",
        run: || Box::pin(refuses(StatusCode::TOO_MANY_REQUESTS)),
    },
    Row {
        name: "server_unavailable",
        kind: Kind::Fast,
        fault: "503 to two calls of each route; then to every call",
        must: "right answers; then the server's own 503",
        run: || Box::pin(refuses(StatusCode::SERVICE_UNAVAILABLE)),
    },
    Row {
        name: "malformed_json",
        kind: Kind::Fast,
        fault: "half of each verification's JSON, as if it were all; then of every reply",
        must: "right answers, decoded plainly, or a 502 where the samples come by the same route; then a 502",
        run: || Box::pin(spoilt(Spoil::Half)),
    },
    Row {
        name: "truncated_bodies",
        kind: Kind::Fast,
        fault: "connections that close after half of each verification's body; then of every body",
        must: "a 502 or one as the last event; then a 502",
        run: || Box::pin(spoilt(Spoil::Cut)),
    },
    Row {
        name: "nan_rows",
        kind: Kind::Fast,
        fault: "a V1 runner that cannot print its rows, answering 400; then `NaN` in each row",
        must: "right answers, in all of it",
        run: || Box::pin(nan()),
    },
    Row {
        name: "wrong_row_counts",
        kind: Kind::Fast,
        fault: "the last row missing; the last row twice; no rows but the first; all of them blank",
        must: "right answers, in all of it",
        run: || Box::pin(counts()),
    },
];

async fn all_right(scene: &mut Scene, tally: &mut Tally) {
    let answers = scene.load(TOKENS).many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
}

async fn refuses(status: StatusCode) -> Seen {
    let mut scene = Plan::new(1).start_warm().await;
    let mut tally = Tally::default();
    tally.step("two");
    // A call is made three times at most, so one that meets two refusals gets through.
    for path in [GENERATE, COMPLETIONS] {
        scene.fake().fail_next(path, 2, status);
    }
    let load = scene.load(TOKENS);
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    tally.step("always");
    scene.fake().fail_next("/", ALWAYS, status);
    let answers = scene.load(TOKENS).many(CLIENTS).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Error(status.as_u16())), "{answers:?}");
    tally.add_all(answers);
    scene.fake().clear_faults();
    tally.step("after it");
    scene.ready().await;
    all_right(&mut scene, &mut tally).await;
    scene.end(tally).await
}

async fn spoilt(how: Spoil) -> Seen {
    let mut scene = Plan::new(1).start_warm().await;
    let mut tally = Tally::default();
    tally.step("verifications");
    scene.fake().spoil_next(GENERATE, ALWAYS, how);
    let load = scene.load(TOKENS);
    let answers = scene.during(&load, CLIENTS, async |_| ()).await;
    // What has no first token yet is asked of the generate route, too, where the request came by it.
    let fine = |answer: &Answer| matches!(answer, Answer::Right | Answer::Error(502) | Answer::ErrorEvent(502));
    assert!(answers.iter().all(fine), "{answers:?}");
    tally.add_all(answers);
    tally.step("every reply");
    scene.fake().spoil_next(COMPLETIONS, ALWAYS, how);
    let answers = scene.load(TOKENS).many(CLIENTS).await;
    assert!(answers.iter().all(fine), "{answers:?}");
    assert!(answers.iter().any(|answer| *answer != Answer::Right), "nothing was spoilt");
    tally.add_all(answers);
    scene.fake().clear_faults();
    tally.step("after it");
    all_right(&mut scene, &mut tally).await;
    scene.end(tally).await
}

/// The first number that follows a `"logprob":`, in every row, as Python writes what is not a number.
fn with_nan(text: &str) -> String {
    let mut parts = text.split("\"logprob\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| {
        let end = part.find([',', '}']).unwrap_or(part.len());
        format!("{whole}\"logprob\":NaN{}", &part[end..])
    })
}

async fn nan() -> Seen {
    let config = FakeConfig { runner: Runner::V1, garbage: Garbage::Nan, block_size: 4, ..FakeConfig::default() };
    let mut scene = Plan::of(config).start_warm().await;
    let mut tally = Tally::default();
    tally.step("400");
    all_right(&mut scene, &mut tally).await;
    tally.step("NaN");
    scene.fake().spoil_next(GENERATE, ALWAYS, Spoil::Text(with_nan));
    let by_completions = scene.load(TOKENS);
    let http = super::support::harness::client();
    // Those of the generate route get their samples by it, which are spoilt like the rows.
    for number in (0..CLIENTS * 2).filter(|number| number % 3 != 2) {
        let answer = by_completions.one(&http, number).await;
        assert_eq!(answer, Answer::Right);
        tally.add(answer);
    }
    drop(http);
    assert!(scene.metric("sidedraft_verify_refused_total", "").await > 0.5, "no row was read");
    scene.fake().clear_faults();
    scene.end(tally).await
}

/// What is done to a reply.
type Change = fn(&mut Value);

fn rows(reply: &mut Value) -> Option<&mut Vec<Value>> {
    reply["prompt_logprobs"].as_array_mut()
}

async fn counts() -> Seen {
    let mut scene = Plan::new(0).start_warm().await;
    let mut tally = Tally::default();
    let ways: [(&str, Change); 4] = [
        ("one missing", |reply| drop(rows(reply).and_then(Vec::pop))),
        ("one twice", |reply| {
            if let Some(rows) = rows(reply) {
                rows.extend(rows.last().cloned());
            }
        }),
        ("one alone", |reply| {
            if let Some(rows) = rows(reply) {
                rows.truncate(1);
            }
        }),
        ("blank", |reply| {
            if let Some(rows) = rows(reply) {
                rows.fill(Value::Null);
            }
        }),
    ];
    for (name, change) in ways {
        let lost = scene.metric("sidedraft_lost_rows_total", "").await;
        let refused = scene.metric("sidedraft_verify_refused_total", "").await;
        tally.step(name);
        scene.fake().spoil_next(GENERATE, ALWAYS, Spoil::Json(change));
        all_right(&mut scene, &mut tally).await;
        let noticed = scene.metric("sidedraft_lost_rows_total", "").await > lost
            || scene.metric("sidedraft_verify_refused_total", "").await > refused;
        assert!(noticed, "{name}: no row was changed");
        scene.fake().clear_faults();
    }
    scene.end(tally).await
}
