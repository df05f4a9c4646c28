//! The matrix as a table, of rows that each ran in a process of its own.

use std::fmt::Write;
use std::process::{Command, ExitCode};
use std::time::Instant;

use super::census::Census;
use super::row::{Row, Seen};

/// Has one row run by this program: its word, the row's name, and where what it saw is written.
pub const ROW: &str = "--row";

const BEGIN: &str = "<!-- fault matrix: begin -->\n";
const END: &str = "<!-- fault matrix: end -->";

/// Runs one row and writes what it saw into a file.
pub fn one(rows: &[Row], name: &str, file: &str) -> ExitCode {
    let row = rows.iter().find(|row| row.name == name).expect("there is such a row");
    match row.check() {
        Ok(seen) => {
            std::fs::write(file, serde_json::to_vec(&seen).unwrap()).unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows whose names contain `only`, prints the table, and writes it into the page at `write`.
pub fn run(rows: &[Row], only: Option<&str>, write: Option<&str>) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::from(
        "| what is done | what clients must see | what they saw | most at once | left over | seconds |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut failed = 0;
    for row in rows.iter().filter(|row| only.is_none_or(|only| row.name.contains(only))) {
        eprintln!("{}", row.name);
        let file = folder.path().join(row.name);
        let started = Instant::now();
        let status = Command::new(std::env::current_exe().unwrap()).args([ROW, row.name]).arg(&file).status().unwrap();
        let seconds = started.elapsed().as_secs_f64();
        if status.success() {
            let seen: Seen = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            line(&mut table, row, &seen, seconds);
        } else {
            failed += 1;
        }
    }
    println!("{table}");
    if failed > 0 {
        eprintln!("{failed} rows failed; nothing is written");
        return ExitCode::FAILURE;
    }
    if let Some(page) = write {
        let text = std::fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the page says where the table begins");
        let (_, after) = rest.split_once(END).expect("the page says where the table ends");
        std::fs::write(page, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    }
    ExitCode::SUCCESS
}

fn line(table: &mut String, row: &Row, seen: &Seen, seconds: f64) {
    let Row { fault, must, .. } = row;
    let Seen { clients, most, left } = seen;
    writeln!(table, "| {fault} | {must} | {clients} | {} | {} | {seconds:.1} |", shown(*most), shown(*left)).unwrap();
}

/// What there was of each, without what there was nothing of.
fn shown(census: Census) -> String {
    let some = census.named().into_iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(name, count)| format!("{count} {name}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}
