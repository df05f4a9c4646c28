//! The run itself: every cell, pair by pair.

use std::time::{Duration, Instant};

use super::client::{Client, Raw};
use super::counters::Counters;
use super::plan;
use super::progress::Progress;
use super::record::{Arm, Cell, Load, Outcome, Pair, Report, Rollout, Round};
use super::request::{Manner, Prepared, outcome, prepare};
use super::settings::CompareSettings;
use super::summary::Summary;
use super::workload::Workload;

/// A cell that has not been measured yet.
#[derive(Debug, Clone, Copy)]
struct Point<'a> {
    index: usize,
    workload: &'a Workload,
    temperature: Option<f64>,
    concurrency: usize,
    rollouts: usize,
}

/// Everything that a run holds on to.
pub(super) struct Run<'a> {
    pub client: &'a Client,
    pub settings: &'a CompareSettings,
    pub workloads: &'a [Workload],
    /// Tells this run's salts from those of others.
    pub name: String,
    pub began: Instant,
}

impl Run<'_> {
    /// Measures cell after cell, and calls `each` after every one.
    pub(super) async fn measure(
        &self,
        report: &mut Report,
        each: impl Fn(&Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let points = self.points();
        let arms = arms(report);
        let rollouts = |point: &Point<'_>| point.rollouts * self.settings.rounds.get() + self.settings.warmup;
        let progress = Progress::new(points.iter().map(rollouts).sum::<usize>() * arms.len());
        for point in points {
            let cell = self.cell(point, report, &arms, &progress).await;
            report.cells.push(cell);
            each(report)?;
        }
        report.finished = true;
        each(report)
    }

    fn points(&self) -> Vec<Point<'_>> {
        let settings = self.settings;
        let mut points = Vec::new();
        for workload in self.workloads {
            for temperature in settings.temperatures() {
                for concurrency in settings.concurrency.iter().map(|concurrency| concurrency.get()) {
                    let rollouts = settings.rollouts(concurrency);
                    points.push(Point { index: points.len(), workload, temperature, concurrency, rollouts });
                }
            }
        }
        points
    }

    async fn cell(
        &self,
        point: Point<'_>,
        report: &Report,
        arms: &[(Arm, String, String)],
        progress: &Progress,
    ) -> Cell {
        progress.begin(&point.workload.name, point.temperature, point.concurrency);
        let load = &report.load;
        for (arm, url, model) in arms {
            // Whatever these say, the rounds will say it too, and there it is counted.
            let salt = load.cache_salt.then(|| plan::salt(&format!("{}w", self.name), point.index, 0, *arm));
            let requests = self.requests(&point, load, model, salt.as_deref(), load.warmup, 0);
            self.client.round(url, &requests, point.concurrency, || progress.rollout()).await;
        }
        let mut pairs = vec![Pair::default(); load.rounds];
        let sides: Vec<Arm> = arms.iter().map(|(arm, ..)| *arm).collect();
        for (number, pair) in pairs.iter_mut().enumerate() {
            for arm in plan::order(&sides, number) {
                let Some((_, url, model)) = arms.iter().find(|(side, ..)| *side == arm) else { continue };
                let salt = load.cache_salt.then(|| plan::salt(&self.name, point.index, number, arm));
                let requests = self.requests(&point, load, model, salt.as_deref(), point.rollouts, number);
                let mut round = self.round(&point, arm, url, &requests, load.stream, progress).await;
                round.cache_salt = salt;
                pair.set(arm, round);
            }
        }
        Cell {
            workload: point.workload.name.clone(),
            temperature: point.temperature,
            concurrency: point.concurrency,
            summary: Summary::of(&pairs),
            pairs,
        }
    }

    fn requests(
        &self,
        point: &Point<'_>,
        load: &Load,
        model: &str,
        cache_salt: Option<&str>,
        count: usize,
        pair: usize,
    ) -> Vec<Prepared> {
        let manner = Manner {
            model,
            temperature: point.temperature,
            max_tokens: load.max_tokens,
            stream: load.stream,
            logprobs: load.logprobs,
            cache_salt,
        };
        let lines = &point.workload.lines;
        plan::rollouts(lines, count, pair).into_iter().map(|index| prepare(index, &lines[index], &manner)).collect()
    }

    async fn round(
        &self,
        point: &Point<'_>,
        arm: Arm,
        url: &str,
        requests: &[Prepared],
        stream: bool,
        progress: &Progress,
    ) -> Round {
        let page = format!("{url}/metrics");
        let counters = async || match arm {
            Arm::Direct => None,
            Arm::Proxied => self.client.get(&page).await.ok().map(|page| Counters::read(&page)),
        };
        let before = counters().await;
        let started = self.began.elapsed().as_secs_f64();
        let (seconds, raws) = self.client.round(url, requests, point.concurrency, || progress.rollout()).await;
        let after = counters().await;
        let read = |(raw, request): (Raw, &Prepared)| {
            let line = &point.workload.lines[request.line];
            rollout(raw, line.number, line.group.clone(), stream)
        };
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

/// The arms there are, with URL and model.
fn arms(report: &Report) -> Vec<(Arm, String, String)> {
    let servers = [(Arm::Direct, &report.direct), (Arm::Proxied, &report.proxied)];
    let present = servers.into_iter().filter_map(|(arm, server)| Some((arm, server.as_ref()?)));
    present.map(|(arm, server)| (arm, server.url.clone(), server.model.clone())).collect()
}

fn rollout(raw: Raw, line: usize, group: Option<String>, stream: bool) -> Rollout {
    let since = |moment: Duration| moment.saturating_sub(raw.started).as_secs_f64();
    Rollout {
        line,
        group,
        started: raw.started.as_secs_f64(),
        seconds: since(raw.ended),
        first: raw.first.filter(|_| stream).map(since),
        outcome: match raw.reply {
            Ok((status, pieces)) => outcome(status, &pieces.concat(), stream),
            Err(error) => Outcome::Failed { error },
        },
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
