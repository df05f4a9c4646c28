//! `sidedraft bench rl`: epochs over the same prompts, as a trainer runs them, with the weights moved in between.

use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;

use super::plan;
use super::record::{Epochs, Load};
use super::run::{Planned, Point};
use super::session::Session;
use super::settings::{Ends, temperature};
use super::workload::Workload;

/// Tells the command between epochs which one is next.
const EPOCH: &str = "SIDEDRAFT_EPOCH";

/// Settings of the comparison by epochs.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Settings {
    #[command(flatten)]
    ends: Ends,

    /// Times that a trainer comes back to the same prompts
    #[arg(long, value_name = "N", default_value = "3")]
    epochs: NonZeroUsize,

    /// Steps of an epoch. Each has other prompts and is a pair: once directly, once through the sidecar, in an order that
    /// alternates. Where the workload has too few prompts, they come again as if they were others
    #[arg(long, value_name = "N", default_value = "5")]
    steps: NonZeroUsize,

    /// Prompts of a step
    #[arg(long, value_name = "N", default_value = "16")]
    prompts: NonZeroUsize,

    /// Rollouts of each prompt. The workload's own `n` does not count
    #[arg(long, value_name = "N", default_value = "8")]
    samples: NonZeroUsize,

    /// Rollouts that run at a time, one measurement for each number of the list. None sees the rollouts of another
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4,16")]
    concurrency: Vec<NonZeroUsize>,

    /// Temperature of all rollouts
    #[arg(long, value_name = "T", default_value = "1", value_parser = temperature)]
    temperature: f64,

    /// A command for the shell before each epoch, the first included, to load the weights that it is to have: SIDEDRAFT_EPOCH
    /// is its number, from 1. If it fails, so does the benchmark
    #[arg(long, value_name = "COMMAND")]
    between: Option<String>,
}

/// Measures, prints the table and writes the files. Fails where no ratio could be told although both URLs were given.
pub(in crate::cli) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let session = Session::open(&settings.ends)?;
    let points = points(settings, &session.workloads)?;
    let load = Load { rounds: settings.steps.get(), ..session.load() };
    let epochs = Epochs {
        epochs: settings.epochs.get(),
        steps: settings.steps.get(),
        prompts: settings.prompts.get(),
        samples: settings.samples.get(),
        between: settings.between.clone(),
    };
    let mut reached = None;
    session.measure(load, Some(epochs), &points, async |point| {
        if let (Some(command), Some(epoch)) = (&settings.between, point.epoch)
            && reached.replace(epoch) != Some(epoch)
        {
            between(command, epoch).await?;
        }
        Ok(())
    })
}

/// The cells, epoch by epoch. All epochs of a workload at one concurrency have the same salts, so that a sidecar takes them for
/// one trainer's; and no others have.
fn points<'a>(settings: &Settings, workloads: &'a [Workload]) -> anyhow::Result<Vec<Point<'a>>> {
    let (steps, prompts, samples) = (settings.steps.get(), settings.prompts.get(), settings.samples.get());
    if let Some(small) = workloads.iter().find(|workload| workload.lines.len() < prompts) {
        bail!("a step has {prompts} prompts, and {} only {}", small.name, small.lines.len());
    }
    let mut points = Vec::new();
    for epoch in 1..=settings.epochs.get() {
        let mut trainer = 0;
        for workload in workloads {
            for concurrency in settings.concurrency.iter().map(|concurrency| concurrency.get()) {
                let planned = |step| {
                    let (rollouts, again) = plan::step(workload.lines.len(), prompts, samples, step);
                    Planned { rollouts, salt: (trainer, again) }
                };
                let pairs = (0..steps).map(planned).collect();
                let temperature = Some(settings.temperature);
                points.push(Point { workload, temperature, concurrency, epoch: Some(epoch), pairs });
                trainer += 1;
            }
        }
    }
    Ok(points)
}

/// Runs `command` ahead of `epoch`. What it prints goes to standard error: standard output is for the table.
async fn between(command: &str, epoch: usize) -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).env(EPOCH, epoch.to_string()).stdout(std::io::stderr());
    let status = tokio::task::spawn_blocking(move || shell.status()).await?;
    let status = status.with_context(|| format!("cannot run {command}"))?;
    if !status.success() {
        bail!("before epoch {epoch}, {command}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::workload::{Line, Prompt};
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(flags: &str) -> Settings {
        let flags = format!("bench --direct http://a --workload w {flags}");
        Flags::parse_from(flags.split_whitespace()).settings
    }

    fn workload(lines: usize) -> Workload {
        let line = |number| Line {
            number,
            prompt: Prompt::Plain("a".into()),
            group: None,
            n: 1,
            max_tokens: None,
            temperature: None,
            answer: None,
        };
        Workload { name: "w".to_owned(), lines: (1..=lines).map(line).collect(), ignored: Default::default() }
    }

    #[test]
    fn every_epoch_has_the_same_rollouts_and_salts_and_no_two_trainers_share_them() {
        let (settings, workloads) = (settings("--steps 3 --prompts 2 --samples 2 --concurrency 1,4"), [workload(4)]);
        let points = points(&settings, &workloads).unwrap();
        let shape: Vec<_> = points.iter().map(|point| (point.epoch, point.concurrency)).collect();
        assert_eq!(shape, [1, 2, 3].map(|epoch| [(Some(epoch), 1), (Some(epoch), 4)]).concat());
        let plan =
            |point: &Point<'_>| point.pairs.iter().map(|pair| (pair.rollouts.clone(), pair.salt)).collect::<Vec<_>>();
        assert_eq!(
            plan(&points[0]),
            [(vec![0, 0, 1, 1], (0, 0)), (vec![2, 2, 3, 3], (0, 0)), (vec![0, 0, 1, 1], (0, 1))]
        );
        assert_eq!(plan(&points[0]), plan(&points[2]));
        assert!(plan(&points[1]).iter().all(|(_, salt)| salt.0 == 1));
    }

    #[test]
    fn a_step_that_is_larger_than_the_workload_is_refused() {
        let error = points(&settings("--prompts 5"), &[workload(4)]).unwrap_err();
        assert_eq!(error.to_string(), "a step has 5 prompts, and w only 4");
    }

    #[tokio::test]
    async fn the_command_is_told_the_epoch_and_its_failure_is_the_benchmarks() {
        between("test \"$SIDEDRAFT_EPOCH\" = 2", 2).await.unwrap();
        let error = between("exit 3", 2).await.unwrap_err().to_string();
        assert!(error.starts_with("before epoch 2, exit 3:") && error.contains('3'), "{error}");
    }
}
