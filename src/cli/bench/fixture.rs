//! Reports made by hand, for tests of what is made out of them.

use super::counters::Counters;
use super::record::{Cell, Load, Outcome, Pair, Report, Rollout, Round, Server};
use super::summary::Summary;

/// A round of rollouts with so many tokens in so many seconds each, one after the other.
pub(super) fn round(rollouts: &[(u64, f64)]) -> Round {
    let mut clock = 0.0;
    let mut rollout = |&(tokens, seconds): &(u64, f64)| {
        let started = clock;
        clock += seconds;
        let outcome = Outcome::Done { tokens, prompt_tokens: Some(3), finish: Some("length".to_owned()) };
        Rollout { line: 1, group: None, started, seconds, first: None, reward: None, outcome }
    };
    let rollouts = rollouts.iter().map(&mut rollout).collect();
    Round { started: 0.0, seconds: clock, cache_salt: None, rollouts, counters: None, void: None }
}

/// Two rounds of which the proxied one is `ratio` times as fast, with a sidecar that counted.
pub(super) fn pair(ratio: f64) -> Pair {
    let counters = Counters {
        drafts: Some(10.0),
        draft_tokens: Some(40.0),
        accepted_tokens: Some(30.0),
        decoded_tokens: Some(10.0),
        draft_seconds: Some([("neural".to_owned(), 0.5)].into()),
        verify_seconds: Some([("cached-suffix".to_owned(), 1.0)].into()),
        accepted_by_drafter: Some([("neural".to_owned(), 20.0), ("replay".to_owned(), 10.0)].into()),
        accepted_by_position: Some([("0".to_owned(), 9.0), ("1".to_owned(), 6.0)].into()),
        drafted_by_position: Some([("0".to_owned(), 10.0), ("1".to_owned(), 10.0)].into()),
        ..Counters::default()
    };
    let proxied = Round { counters: Some(counters), ..round(&[(20, 2.0 / ratio), (30, 3.0 / ratio)]) };
    Pair { direct: Some(round(&[(20, 2.0), (30, 3.0)])), proxied: Some(proxied) }
}

/// A cell of these pairs.
pub(super) fn cell(concurrency: usize, pairs: Vec<Pair>) -> Cell {
    let summary = Summary::of(&pairs);
    Cell { workload: "math".to_owned(), temperature: Some(0.0), concurrency, epoch: None, pairs, summary }
}

/// A report of these cells.
pub(super) fn report(cells: Vec<Cell>) -> Report {
    let server = |url: &str, sidecar| Server {
        url: url.to_owned(),
        model: "m".to_owned(),
        root: None,
        max_model_len: None,
        version: Some("0.32.0".to_owned()),
        sidecar: Some(sidecar),
    };
    Report {
        sidedraft: "0.1.0".to_owned(),
        started: 0,
        finished: true,
        direct: Some(server("http://direct", false)),
        proxied: Some(server("http://proxied", true)),
        load: Load {
            rounds: 3,
            together: false,
            stream: false,
            logprobs: false,
            cache_salt: true,
            warmup: 1,
            max_tokens: None,
        },
        epochs: None,
        notes: vec!["A note.".to_owned()],
        cells,
    }
}

/// A report with a cell that has a ratio and one that has none, since a round failed.
pub(super) fn mixed() -> Report {
    let mut failed = pair(1.0);
    if let Some(round) = &mut failed.proxied {
        round.void = Some("1 of 2 rollouts failed".to_owned());
    }
    report(vec![cell(1, vec![pair(1.5), pair(2.0), pair(1.6)]), cell(4, vec![pair(1.0), failed])])
}
