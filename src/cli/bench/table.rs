//! The table on standard output, and what has to be said below it.

use super::comparison::{Comparison, Ratio};
use super::record::{Cell, Report};
use super::summary::{ArmSummary, Latency, Reward, Speculation};

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
    let epoch = cell.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    format!("{}{temperature}{epoch}, concurrency {}", cell.workload, cell.concurrency)
}

/// A row of heads, and one for each cell.
pub(super) fn rows(report: &Report) -> Vec<Vec<String>> {
    let (together, epochs) = (report.load.together, report.epochs.is_some());
    let rewarded = report.cells.iter().any(|cell| rewards(cell).iter().any(Option::is_some));
    let mut head = vec!["workload", "temp", "conc", "direct tok/s", "proxied tok/s", "ratio", "interval"];
    if epochs {
        head.insert(2, "epoch");
        head.extend(["step s", "step ratio", "tail s"]);
    }
    if together {
        head.extend(["makespan s", "makespan ratio"]);
    }
    head.extend(["accept len", "decoded", "accepted"]);
    if epochs {
        head.push("accepted from");
    }
    head.extend(["direct p50/p99 s", "proxied p50/p99 s"]);
    if rewarded {
        head.push("reward");
    }
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
        let both = |of: fn(&ArmSummary) -> Option<f64>| {
            let arm = |arm: &Option<ArmSummary>| number(arm.as_ref().and_then(of), 2);
            format!("{} / {}", arm(&summary.direct), arm(&summary.proxied))
        };
        if epochs {
            row.insert(2, cell.epoch.map_or_else(|| ABSENT.to_owned(), |epoch| epoch.to_string()));
        }
        if epochs || together {
            row.extend([both(|arm| arm.makespan), ratio(makespan)]);
        }
        if epochs {
            row.push(both(|arm| arm.tail));
        }
        let speculation = summary.speculation.as_ref();
        row.extend([
            number(speculation.and_then(|speculation| speculation.acceptance_length), 2),
            share(speculation.and_then(|speculation| speculation.decoded_share)),
            share(speculation.and_then(|speculation| speculation.accepted_share)),
        ]);
        if epochs {
            row.push(speculation.map_or_else(|| ABSENT.to_owned(), sources));
        }
        row.extend([latency(&summary.direct), latency(&summary.proxied)]);
        if rewarded {
            row.push(rewards(cell).map(reward).join(" / "));
        }
        rows.push(row);
    }
    rows
}

fn rewards(cell: &Cell) -> [Option<Reward>; 2] {
    [&cell.summary.direct, &cell.summary.proxied].map(|arm| arm.as_ref()?.reward)
}

fn reward(reward: Option<Reward>) -> String {
    reward.map_or_else(|| ABSENT.to_owned(), |reward| format!("{:.3}±{:.3}", reward.mean, reward.error))
}

/// Which drafters the accepted drafts came from, in shares of the output.
fn sources(speculation: &Speculation) -> String {
    let Some(sources) = &speculation.accepted_by_drafter else { return ABSENT.to_owned() };
    sources.iter().map(|(drafter, part)| format!("{drafter} {:.0}%", 100.0 * part)).collect::<Vec<_>>().join(", ")
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
    use super::super::record::Epochs;
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
    fn an_epoch_tells_its_step_its_tail_where_tokens_came_from_and_its_reward() {
        let mut pair = fixture::pair(1.25);
        let rounds = [(&mut pair.direct, 0.0), (&mut pair.proxied, 1.0)];
        for (rollout, reward) in rounds.into_iter().flat_map(|(round, reward)| {
            round.iter_mut().flat_map(|round| &mut round.rollouts).map(move |rollout| (rollout, reward))
        }) {
            rollout.reward = Some(reward);
        }
        let mut report = fixture::report(vec![Cell { epoch: Some(2), ..fixture::cell(4, vec![pair]) }]);
        report.epochs = Some(Epochs { epochs: 3, steps: 1, prompts: 1, samples: 2, between: None });
        let rows = rows(&report);
        let told = |head: &str| &rows[1][rows[0].iter().position(|column| column == head).unwrap()];
        for (head, value) in [
            ("epoch", "2"),
            ("step s", "5.00 / 4.00"),
            ("step ratio", "0.800 (0.80..0.80)"),
            ("tail s", "3.00 / 2.40"),
            ("accepted from", "neural 40%, replay 20%"),
            ("reward", "0.000±0.000 / 1.000±0.000"),
        ] {
            assert_eq!(told(head), value, "{head}");
        }
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
