//! The run itself: a cell, pair by pair.

use std::time::{Duration, Instant};

use super::client::{Client, Raw};
use super::counters::Counters;
use super::plan;
use super::progress::Progress;
use super::record::{Arm, Cell, Load, Outcome, Pair, Report, Rollout, Round};
use super::request::{Manner, Prepared, outcome, prepare};
use super::reward::reward;
use super::summary::Summary;
use super::workload::{Line, Workload};

/// A cell that has not been measured yet.
#[derive(Debug, Clone)]
pub(super) struct Point<'a> {
    pub workload: &'a Workload,
    pub temperature: Option<f64>,
    pub concurrency: usize,
    /// From 1, where epochs are measured.
    pub epoch: Option<usize>,
    pub pairs: Vec<Planned>,
}

/// What both rounds of a pair have.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Indices into the workload's lines.
    pub rollouts: Vec<usize>,
    /// Rounds of one arm with the same numbers have the same salt.
    pub salt: (usize, usize),
}

impl Point<'_> {
    /// Rollouts of one arm, with so many to warm up.
    pub(super) fn rollouts(&self, warmup: usize) -> usize {
        self.pairs.iter().map(|pair| pair.rollouts.len()).sum::<usize>() + warmup
    }
}

/// Everything that a run holds on to.
pub(super) struct Run<'a> {
    client: &'a Client,
    /// Tells this run's salts from those of others.
    name: String,
    began: Instant,
    progress: Progress,
    /// The arms there are, with URL and model.
    arms: Vec<(Arm, String, String)>,
}

impl<'a> Run<'a> {
    /// A run against the servers of `report`, with so many rollouts to each.
    pub(super) fn new(client: &'a Client, report: &Report, rollouts: usize) -> Self {
        let servers = [(Arm::Direct, &report.direct), (Arm::Proxied, &report.proxied)];
        let present = servers.into_iter().filter_map(|(arm, server)| Some((arm, server.as_ref()?)));
        let arms: Vec<_> = present.map(|(arm, server)| (arm, server.url.clone(), server.model.clone())).collect();
        Self {
            client,
            name: uuid::Uuid::new_v4().simple().to_string(),
            began: Instant::now(),
            progress: Progress::new(rollouts * arms.len()),
            arms,
        }
    }

    /// Measures the cell of this number.
    pub(super) async fn cell(&self, number: usize, point: &Point<'_>, load: &Load) -> Cell {
        self.progress.begin(&point.workload.name, point.temperature, point.epoch, point.concurrency);
        let lines = &point.workload.lines;
        for (arm, url, model) in &self.arms {
            // Whatever these say, the rounds will say it too, and there it is counted.
            let salt = load.cache_salt.then(|| plan::salt(&format!("{}w", self.name), number, 0, *arm));
            let rollouts = plan::rollouts(lines, load.warmup, 0);
            let requests = requests(point, load, model, salt.as_deref(), &rollouts);
            self.client.round(url, &requests, point.concurrency, || self.progress.rollout()).await;
        }
        let mut pairs = vec![Pair::default(); point.pairs.len()];
        let sides: Vec<Arm> = self.arms.iter().map(|(arm, ..)| *arm).collect();
        for (index, (pair, planned)) in pairs.iter_mut().zip(&point.pairs).enumerate() {
            for arm in plan::order(&sides, index) {
                let Some((_, url, model)) = self.arms.iter().find(|(side, ..)| *side == arm) else { continue };
                let (first, second) = planned.salt;
                let salt = load.cache_salt.then(|| plan::salt(&self.name, first, second, arm));
                let requests = requests(point, load, model, salt.as_deref(), &planned.rollouts);
                let mut round = self.round(point, arm, url, &requests, load.stream).await;
                round.cache_salt = salt;
                pair.set(arm, round);
            }
        }
        Cell {
            workload: point.workload.name.clone(),
            temperature: point.temperature,
            concurrency: point.concurrency,
            epoch: point.epoch,
            summary: Summary::of(&pairs),
            pairs,
        }
    }

    async fn round(&self, point: &Point<'_>, arm: Arm, url: &str, requests: &[Prepared], stream: bool) -> Round {
        let page = format!("{url}/metrics");
        let counters = async || match arm {
            Arm::Direct => None,
            Arm::Proxied => self.client.get(&page).await.ok().map(|page| Counters::read(&page)),
        };
        let before = counters().await;
        let started = self.began.elapsed().as_secs_f64();
        let (seconds, raws) = self.client.round(url, requests, point.concurrency, || self.progress.rollout()).await;
        let after = counters().await;
        let read = |(raw, request): (Raw, &Prepared)| rollout(raw, &point.workload.lines[request.line], stream);
        let rollouts: Vec<Rollout> = raws.into_iter().zip(requests).map(read).collect();
        let counted = match (before, after) {
            (Some(before), Some(after)) => after.since(&before).map(Some).ok_or("the sidecar's counters went back"),
            (None, None) => Ok(None),
            _ => Err("the sidecar's metrics page was not there all the time"),
        };
        let void = failures(&rollouts).or_else(|| counted.as_ref().err().map(|why| (*why).to_owned()));
        let counters = counted.ok().flatten();
        Round { started, seconds: seconds.as_secs_f64(), cache_salt: None, rollouts, counters, void }
    }
}

fn requests(
    point: &Point<'_>,
    load: &Load,
    model: &str,
    cache_salt: Option<&str>,
    rollouts: &[usize],
) -> Vec<Prepared> {
    let manner = Manner {
        model,
        temperature: point.temperature,
        max_tokens: load.max_tokens,
        stream: load.stream,
        logprobs: load.logprobs,
        cache_salt,
    };
    rollouts.iter().map(|index| prepare(*index, &point.workload.lines[*index], &manner)).collect()
}

fn rollout(raw: Raw, line: &Line, stream: bool) -> Rollout {
    let since = |moment: Duration| moment.saturating_sub(raw.started).as_secs_f64();
    let (outcome, text) = match raw.reply {
        Ok((status, pieces)) => outcome(status, &pieces.concat(), stream),
        Err(error) => (Outcome::Failed { error }, String::new()),
    };
    let is_done = matches!(outcome, Outcome::Done { .. });
    Rollout {
        line: line.number,
        group: line.group.clone(),
        started: raw.started.as_secs_f64(),
        seconds: since(raw.ended),
        first: raw.first.filter(|_| stream).map(since),
        reward: line.answer.filter(|_| is_done).map(|answer| reward(&text, answer)),
        outcome,
    }
}

/// Why the round of these rollouts is void, if it is.
fn failures(rollouts: &[Rollout]) -> Option<String> {
    let errors = rollouts.iter().filter_map(|rollout| match &rollout.outcome {
        Outcome::Failed { error } => Some(error),
        Outcome::Done { .. } => None,
    });
    let errors: Vec<&String> = errors.collect();
    let first = errors.first()?;
    Some(format!("{} of {} rollouts failed, the first with: {first}", errors.len(), rollouts.len()))
}
