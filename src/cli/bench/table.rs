//! The table on standard output, and what has to be said below it.

use super::comparison::{Comparison, Ratio};
use super::record::{Cell, Report};
use super::summary::{ArmSummary, Latency};

/// What a cell does not have.
const ABSENT: &str = "-";

/// The whole report as text.
pub(super) fn render(report: &Report) -> String {
    let remarks = remarks(report).into_iter().map(|remark| remark + "\n");
    lay_out(&rows(report)) + &remarks.collect::<String>()
}

/// What has to be said of the numbers.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut paired = None;
    for cell in &report.cells {
        match &cell.summary.comparison {
            Comparison::Unpaired { no_ratio } => remarks.push(format!("no ratio for {}: {no_ratio}", name(cell))),
            Comparison::Paired { speed, .. } => paired = Some(speed),
        }
    }
    if let Some(speed) = paired {
        let (pairs, sure) = (speed.pairs.len(), 100.0 * speed.spread.confidence);
        remarks.push(format!("ratio: proxied to direct, the median of {pairs} pairs (min..max)"));
        remarks.push(format!("interval: holds the true median with a probability of {sure:.1}%"));
    }
    remarks.extend(report.notes.iter().map(|note| format!("note: {note}")));
    remarks
}

/// What tells a cell from the others.
fn name(cell: &Cell) -> String {
    let temperature = cell.temperature.map_or_else(String::new, |t| format!(" at temperature {t}"));
    format!("{}{temperature}, concurrency {}", cell.workload, cell.concurrency)
}

/// A row of heads, and one for each cell.
pub(super) fn rows(report: &Report) -> Vec<Vec<String>> {
    let together = report.load.together;
    let mut head = vec!["workload", "temp", "conc", "direct tok/s", "proxied tok/s", "ratio", "interval"];
    if together {
        head.extend(["makespan s", "makespan ratio"]);
    }
    head.extend(["accept len", "decoded", "accepted", "direct p50/p99 s", "proxied p50/p99 s"]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for cell in &report.cells {
        let summary = &cell.summary;
        let (speed, makespan) = match &summary.comparison {
            Comparison::Paired { speed, makespan } => (Some(speed), Some(makespan)),
            Comparison::Unpaired { .. } => (None, None),
        };
        let rate = |arm: &Option<ArmSummary>| number(arm.as_ref().and_then(|arm| arm.tokens_per_second), 1);
        let mut row = vec![
            cell.workload.clone(),
            cell.temperature.map_or_else(|| "own".to_owned(), |temperature| temperature.to_string()),
            cell.concurrency.to_string(),
            rate(&summary.direct),
            rate(&summary.proxied),
            ratio(speed),
            speed.map_or_else(|| ABSENT.to_owned(), |ratio| range(ratio.spread.interval)),
        ];
        if together {
            let span = |arm: &Option<ArmSummary>| number(arm.as_ref().and_then(|arm| arm.makespan), 2);
            row.extend([format!("{} / {}", span(&summary.direct), span(&summary.proxied)), ratio(makespan)]);
        }
        let speculation = summary.speculation.as_ref();
        row.extend([
            number(speculation.and_then(|speculation| speculation.acceptance_length), 2),
            share(speculation.and_then(|speculation| speculation.decoded_share)),
            share(speculation.and_then(|speculation| speculation.accepted_share)),
            latency(&summary.direct),
            latency(&summary.proxied),
        ]);
        rows.push(row);
    }
    rows
}

fn ratio(ratio: Option<&Ratio>) -> String {
    ratio.map_or_else(
        || "none".to_owned(),
        |ratio| format!("{:.3} ({})", ratio.spread.median, range((ratio.spread.min, ratio.spread.max))),
    )
}

fn range((low, high): (f64, f64)) -> String {
    format!("{low:.2}..{high:.2}")
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| format!("{value:.digits$}"))
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| format!("{:.0}%", 100.0 * value))
}

fn latency(arm: &Option<ArmSummary>) -> String {
    match arm.as_ref().and_then(|arm| arm.latency) {
        Some(Latency { p50, p99, .. }) => format!("{p50:.2} / {p99:.2}"),
        None => ABSENT.to_owned(),
    }
}

/// Columns as wide as their widest field: the first to the left, the others to the right.
fn lay_out(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let fields = row.iter().zip(&widths).enumerate().map(|(column, (field, width))| match column {
            0 => format!("{field:<width$}"),
            _ => format!("{field:>width$}"),
        });
        text.push_str(fields.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_cell_is_a_row_and_what_has_no_ratio_says_why() {
        expect_test::expect![[r#"
            workload  temp  conc  direct tok/s  proxied tok/s               ratio    interval  accept len  decoded  accepted  direct p50/p99 s  proxied p50/p99 s
            math         0     1          10.0           16.0  1.600 (1.50..2.00)  1.50..2.00        4.00      20%       60%       2.50 / 3.00        1.42 / 1.99
            math         0     4          10.0           10.0                none           -        4.00      20%       60%       2.50 / 3.00        2.50 / 2.99
            no ratio for math at temperature 0, concurrency 4: round 2 of the proxied arm is void: 1 of 2 rollouts failed
            ratio: proxied to direct, the median of 3 pairs (min..max)
            interval: holds the true median with a probability of 75.0%
            note: A note.
        "#]]
        .assert_eq(&render(&fixture::mixed()));
    }

    #[test]
    fn a_run_of_rollouts_started_together_tells_when_the_last_one_ended() {
        let mut report = fixture::report(vec![fixture::cell(32, vec![fixture::pair(1.25)])]);
        report.load.together = true;
        let rows = rows(&report);
        let column = rows[0].iter().position(|head| head == "makespan s").unwrap();
        assert_eq!(rows[1][column..=column + 1], ["5.00 / 4.00", "0.800 (0.80..0.80)"]);
    }
}
