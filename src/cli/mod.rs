//! The command line: one file a subcommand.

mod bench;
mod bench_draft;
mod bench_proxy;
mod doctor;
mod serve;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Exact speculative decoding as a sidecar proxy in front of an unmodified vLLM server.
#[derive(Debug, Parser)]
#[command(name = "sidedraft", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the vLLM API in front of a vLLM server, with speculation
    Serve(Box<crate::config::ServeSettings>),
    /// Find out whether speculation would work with a server, and what would make it slow
    Doctor(Box<doctor::DoctorSettings>),
    /// Measure what the sidecar brings, against the server itself
    Bench(Box<bench::BenchCommand>),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Command::Serve(settings) => serve::run(*settings).map(|()| ExitCode::SUCCESS),
        Command::Doctor(settings) => doctor::run(*settings),
        Command::Bench(command) => bench::run(*command),
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// Says in one line what is wrong with the command line; help and version are what was asked for, and stay as they are.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if asked_for {
        error.exit();
    }
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>();
    let message = lines.join(" ");
    complain(&anyhow!("{}", message.strip_prefix("error: ").unwrap_or(&message).to_owned()));
    ExitCode::from(2)
}

/// One line that says what is wrong.
#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("sidedraft: {error:#}");
}
