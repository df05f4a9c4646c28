//! `sidedraft bench`: what the sidecar brings, measured against the server itself, round by round.

mod settings;

use std::process::ExitCode;

use clap::Args;

use settings::CompareSettings;

/// `sidedraft bench`, alone or with a subcommand.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BenchCommand {
    #[command(flatten)]
    compare: Option<CompareSettings>,
}

/// Runs what the command line asks for.
pub(super) fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    let Some(settings) = command.compare else { anyhow::bail!("nothing to measure: give --workload") };
    anyhow::bail!("cannot measure {} yet", settings.workload.len())
}
