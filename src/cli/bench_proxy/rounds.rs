//! The measurement: everything in every round, every way, in an order that changes from round to round.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use super::lanes::Lanes;
use super::load::Tally;
use super::process::Process;
use super::settings::Settings;
use super::stats::percentile;
use super::traffic::Kind;

/// A way to the upstream.
pub(super) struct Way<'a> {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The proxy on it.
    pub process: Option<&'a Process>,
}

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measure {
    /// Microseconds from a request to its whole reply; through a proxy, what it adds to that.
    LatencyP50,
    LatencyP99,
    RequestsPerSecond,
    TokensPerSecond,
    /// Microseconds of processor time that the proxy took for each request or token.
    Cost,
}

/// A line of the result: a number for each way and round.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub measure: Measure,
    #[serde(serialize_with = "by_name")]
    pub kind: Kind,
    pub connections: usize,
    /// In the order of the ways; within, of the rounds.
    pub values: Vec<Vec<f64>>,
}

fn by_name<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    pub lines: Vec<Line>,
    /// Requests of each kind, in the order of [`Kind::ALL`], that were sent and answered, for each way.
    pub requests: Vec<[[u64; 2]; 3]>,
}

impl Measured {
    fn add(&mut self, measure: Measure, kind: Kind, connections: usize, way: usize, value: f64) {
        let same = |line: &&mut Line| (line.measure, line.kind, line.connections) == (measure, kind, connections);
        let ways = self.requests.len();
        let line = match self.lines.iter_mut().find(same) {
            Some(line) => line,
            None => {
                self.lines.push(Line { measure, kind, connections, values: vec![Vec::new(); ways] });
                let last = self.lines.len() - 1;
                &mut self.lines[last]
            }
        };
        line.values[way].push(value);
    }

    fn count(&mut self, way: usize, kind: Kind, sent: u64, answered: u64) {
        let count = &mut self.requests[way][kind as usize];
        count[0] += sent;
        count[1] += answered;
    }
}

/// Measures all `ways`, the first of which has no proxy; `progress` hears of every round that is over.
pub(super) fn measure(
    lanes: &Lanes,
    ways: &[Way<'_>],
    settings: &Settings,
    mut progress: impl FnMut(usize),
) -> anyhow::Result<Measured> {
    let mut measured = Measured { requests: vec![Default::default(); ways.len()], ..Measured::default() };
    for round in 0..settings.rounds.get() {
        for kind in [Kind::Route, Kind::Completion] {
            latency(&mut measured, lanes, ways, kind, settings.requests.get())?;
        }
        let connections = settings.connections.get();
        for kind in [Kind::Route, Kind::Completion] {
            rate(&mut measured, lanes, ways, (kind, connections), round, settings.seconds)?;
        }
        for connections in &settings.streams {
            rate(&mut measured, lanes, ways, (Kind::Stream, connections.get()), round, settings.seconds)?;
        }
        progress(round + 1);
    }
    Ok(measured)
}

fn latency(
    measured: &mut Measured,
    lanes: &Lanes,
    ways: &[Way<'_>],
    kind: Kind,
    requests: usize,
) -> anyhow::Result<()> {
    let targets: Vec<SocketAddr> = ways.iter().map(|way| way.address).collect();
    let times = lanes.one_by_one(kind, &targets, requests)?;
    for (measure, part) in [(Measure::LatencyP50, 0.5), (Measure::LatencyP99, 0.99)] {
        let micros: Vec<f64> = times.iter().map(|times| percentile(times, part).as_secs_f64() * 1e6).collect();
        for (way, &value) in micros.iter().enumerate() {
            let added = if ways[way].process.is_some() { value - micros[0] } else { value };
            measured.add(measure, kind, 1, way, added);
        }
    }
    for (way, times) in times.iter().enumerate() {
        // The one that opens the connection is not timed.
        let sent = times.len() as u64 + 1;
        measured.count(way, kind, sent, sent);
    }
    Ok(())
}

fn rate(
    measured: &mut Measured,
    lanes: &Lanes,
    ways: &[Way<'_>],
    (kind, connections): (Kind, usize),
    round: usize,
    window: Duration,
) -> anyhow::Result<()> {
    for place in 0..ways.len() {
        let way = (place + round) % ways.len();
        let Way { name, address, process } = ways[way];
        let used = || process.and_then(Process::cpu_time);
        let before = used();
        let tally = lanes.busy(kind, address, connections, window)?;
        let Tally { sent, answered, counted, tokens, window } = tally;
        let cost = used().zip(before).map(|(after, before)| (after - before).as_secs_f64() * 1e6 / answered as f64);
        measured.count(way, kind, sent, answered);
        ensure!(counted > 0 || tokens > 0, "{name}: no {} was answered in {window:?}", kind.name());
        let (measure, value, unit) = match kind {
            Kind::Stream => (Measure::TokensPerSecond, tokens, super::traffic::STREAMED_TOKENS as f64),
            Kind::Route | Kind::Completion => (Measure::RequestsPerSecond, counted, 1.0),
        };
        measured.add(measure, kind, connections, way, value as f64 / window.as_secs_f64());
        if let Some(cost) = cost {
            measured.add(Measure::Cost, kind, connections, way, cost / unit);
        }
    }
    Ok(())
}
