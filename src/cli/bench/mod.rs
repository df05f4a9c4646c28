//! `sidedraft bench`: what the sidecar brings, measured against the server itself, round by round.

mod client;
mod compare;
mod comparison;
mod counters;
#[cfg(test)]
mod fixture;
mod page;
mod plan;
mod progress;
mod record;
mod request;
mod reward;
mod rl;
mod run;
mod servers;
mod session;
mod settings;
mod stats;
mod summary;
mod table;
mod workload;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{bench_draft, bench_proxy};
use settings::CompareSettings;

/// `sidedraft bench`, alone or with a subcommand.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BenchCommand {
    #[command(flatten)]
    compare: CompareSettings,

    #[command(subcommand)]
    other: Option<OtherBench>,
}

#[derive(Debug, Subcommand)]
enum OtherBench {
    /// Measure what forwarding costs, beside nginx where there is one
    Proxy(bench_proxy::Settings),
    /// Measure what the sidecar brings over epochs of the same prompts, with the weights moved in between
    Rl(Box<rl::Settings>),
    /// Measure what a draft model costs on this machine, and compare it with float32
    Draft(bench_draft::Settings),
}

/// Runs what the command line asks for.
pub(super) fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match &command.other {
        Some(OtherBench::Proxy(settings)) => bench_proxy::run(settings),
        Some(OtherBench::Rl(settings)) => rl::run(settings),
        Some(OtherBench::Draft(settings)) => bench_draft::run(settings),
        None => compare::compare(&command.compare),
    }
}
