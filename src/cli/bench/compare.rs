//! A comparison rollout by rollout: which cells it has.

use std::process::ExitCode;

use super::plan;
use super::record::Load;
use super::run::{Planned, Point};
use super::session::Session;
use super::settings::CompareSettings;
use super::workload::Workload;

/// Fails where no ratio could be told although both URLs were given.
pub(super) fn compare(settings: &CompareSettings) -> anyhow::Result<ExitCode> {
    let session = Session::open(&settings.ends)?;
    let load = Load {
        rounds: settings.rounds.get(),
        together: settings.together,
        cache_salt: !settings.no_cache_salt,
        ..session.load()
    };
    let points = points(settings, &session.workloads);
    session.measure(load, None, &points, async |_| Ok(()))
}

fn points<'a>(settings: &CompareSettings, workloads: &'a [Workload]) -> Vec<Point<'a>> {
    let mut points = Vec::new();
    for workload in workloads {
        for temperature in settings.temperatures() {
            for concurrency in settings.concurrency.iter().map(|concurrency| concurrency.get()) {
                let (count, cell) = (settings.rollouts(concurrency), points.len());
                let planned =
                    |pair| Planned { rollouts: plan::rollouts(&workload.lines, count, pair), salt: (cell, pair) };
                let pairs = (0..settings.rounds.get()).map(planned).collect();
                points.push(Point { workload, temperature, concurrency, epoch: None, pairs });
            }
        }
    }
    points
}
