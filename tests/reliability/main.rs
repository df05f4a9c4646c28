//! The fault matrix: what is done to the sidecar and its server, what clients see of it, and that nothing is left over.
//!
//! ```text
//! reliability                        the rows as tests, the slow ones ignored (also what nextest runs)
//! reliability --table [--write FILE] every row, each in a process of its own, as a table; then into FILE
//!                                    [--only TEXT] only rows whose name contains TEXT
//! reliability --soak SECONDS         mixed load for so long; memory, files and tasks must not grow
//! ```
//!
//! A row is data and a function ([`row::Row`]), so what the table says is what ran. Rows of real servers need
//! `tests/target`'s environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(missing_docs, dead_code, unreachable_pub)]

#[path = "../fake/drafters.rs"]
mod drafters;
#[path = "../fake/rig.rs"]
mod rig;
#[path = "../real/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
#[path = "../fake/tiny_llama.rs"]
mod tiny_llama;
#[path = "../fake/trainer.rs"]
mod trainer;
#[path = "../real/own_server.rs"]
mod vllm;

mod bugs;
mod census;
mod clients;
mod clock;
mod fetch;
mod load;
mod other_server;
mod outages;
mod process;
mod real;
mod replies;
mod row;
mod scene;
mod soak;
mod spawn;
mod table;
mod termination;

use libtest_mimic::{Arguments, Trial};

use row::{Kind, Row};

/// Every row, in the table's order.
const ROWS: [&[Row]; 8] = [
    outages::ROWS,
    replies::ROWS,
    other_server::ROWS,
    clock::ROWS,
    clients::ROWS,
    termination::ROWS,
    bugs::ROWS,
    real::ROWS,
];

fn main() -> std::process::ExitCode {
    spawn::raise_file_limit();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1)).cloned();
    match words.first().map(String::as_str) {
        Some(spawn::FAKE) => spawn::fake_vllm(&words[1..]),
        Some("--soak") => soak::soak(after("--soak").and_then(|seconds| seconds.parse().ok()).unwrap_or(600)),
        Some(table::ROW) => table::one(&ROWS.concat(), &words[1], &words[2]),
        Some("--table") => table::run(&ROWS.concat(), after("--only").as_deref(), after("--write").as_deref()),
        _ => {
            let trial = |row: &Row| {
                let row = *row;
                let ignored = row.kind != Kind::Fast;
                Trial::test(row.name, move || row.check().map(drop).map_err(Into::into)).with_ignored_flag(ignored)
            };
            let trials = ROWS.concat().iter().map(trial).collect();
            let mut arguments = Arguments::from_args();
            // Files and tasks are counted of the whole process.
            arguments.test_threads = Some(1);
            libtest_mimic::run(&arguments, trials).exit_code()
        }
    }
}
