//! The command line: one file a subcommand.

mod doctor;
mod serve;

use std::process::ExitCode;

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
    Doctor(doctor::DoctorSettings),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(settings) => serve::run(*settings).map(|()| ExitCode::SUCCESS),
        Command::Doctor(settings) => doctor::run(settings),
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// One line that says what is wrong.
#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("sidedraft: {error:#}");
}
