//! The `sidedraft` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidedraft::cli::main()
}
