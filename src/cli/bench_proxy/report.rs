//! The table that people read.

use std::fmt::Write as _;

use super::rounds::{Line, Measure};
use super::stats::Summary;
use super::traffic::Kind;

/// The lines as a Markdown table with a column for each way, the first of which is the direct one.
pub(super) fn table(lines: &[Line], ways: &[&str]) -> String {
    let compared = ways.len() == 3;
    let mut text = String::from("| |");
    for way in ways {
        // Writing into a string does not fail.
        _ = write!(text, " {way} |");
    }
    text.push_str(if compared { " sidecar / nginx |\n" } else { "\n" });
    text.push_str("|---|");
    text.push_str(&"---:|".repeat(ways.len() + usize::from(compared)));
    text.push('\n');
    for line in lines {
        _ = write!(text, "| {} |", title(line));
        for (way, values) in line.values.iter().enumerate() {
            _ = write!(text, " {} |", cell(line.measure, way > 0, values));
        }
        if compared {
            let ratio = Summary::of_ratios(&line.values[2], &line.values[1]);
            let shown = ratio.map(|r| format!("**{:.2}** ({:.2}–{:.2})", r.median, r.least, r.most));
            _ = write!(text, " {} |", shown.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

fn title(line: &Line) -> String {
    let kind = match line.kind {
        Kind::Route => "unknown route",
        Kind::Completion => "parsed completion",
        Kind::Stream => "stream",
    };
    let connections = match line.connections {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    };
    match line.measure {
        Measure::LatencyP50 => format!("latency p50, {kind}, µs"),
        Measure::LatencyP99 => format!("latency p99, {kind}, µs"),
        Measure::RequestsPerSecond => format!("requests/s, {kind}, {connections}"),
        Measure::TokensPerSecond => format!("tokens/s, {connections}"),
        Measure::Cost if line.kind == Kind::Stream => format!("CPU a token, {connections}, µs"),
        Measure::Cost => format!("CPU a request, {kind}, {connections}, µs"),
    }
}

fn cell(measure: Measure, proxied: bool, values: &[f64]) -> String {
    let Some(Summary { median, least, most }) = Summary::of(values) else { return String::new() };
    match measure {
        Measure::LatencyP50 | Measure::LatencyP99 if proxied => format!("+{median:.1} ({least:.1}–{most:.1})"),
        Measure::LatencyP50 | Measure::LatencyP99 => format!("{median:.1} ({least:.1}–{most:.1})"),
        Measure::RequestsPerSecond | Measure::TokensPerSecond => format!("{median:.0} ({least:.0}–{most:.0})"),
        Measure::Cost => format!("{median:.2} ({least:.2}–{most:.2})"),
    }
}

/// `page` with `text` between its comments; nothing where they do not stand on it.
pub(super) fn insert(page: &str, text: &str) -> Option<String> {
    const BEGIN: &str = "<!-- bench proxy: begin -->\n";
    const END: &str = "<!-- bench proxy: end -->";
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let line = |measure, kind, connections, values| Line { measure, kind, connections, values };
        vec![
            line(Measure::LatencyP50, Kind::Route, 1, vec![vec![30.0], vec![25.0], vec![20.0]]),
            line(
                Measure::TokensPerSecond,
                Kind::Stream,
                64,
                vec![vec![9e4, 8e4, 7e4], vec![5e4, 4e4, 4e4], vec![5e4, 4e4, 5e4]],
            ),
            line(Measure::Cost, Kind::Stream, 64, vec![vec![], vec![4.0], vec![5.0]]),
        ]
    }

    #[test]
    fn a_table_compares_the_proxies_round_by_round() {
        expect_test::expect![[r"
            | | direct | nginx | sidecar | sidecar / nginx |
            |---|---:|---:|---:|---:|
            | latency p50, unknown route, µs | 30.0 (30.0–30.0) | +25.0 (25.0–25.0) | +20.0 (20.0–20.0) | **0.80** (0.80–0.80) |
            | tokens/s, 64 connections | 80000 (70000–90000) | 40000 (40000–50000) | 50000 (40000–50000) | **1.00** (1.00–1.25) |
            | CPU a token, 64 connections, µs |  | 4.00 (4.00–4.00) | 5.00 (5.00–5.00) | **1.25** (1.25–1.25) |
        "]]
        .assert_eq(&table(&lines(), &["direct", "nginx", "sidecar"]));
    }

    #[test]
    fn without_nginx_there_is_nothing_to_compare_with() {
        let mut lines = lines();
        lines.truncate(1);
        lines[0].values.remove(1);
        expect_test::expect![[r"
            | | direct | sidecar |
            |---|---:|---:|
            | latency p50, unknown route, µs | 30.0 (30.0–30.0) | +20.0 (20.0–20.0) |
        "]]
        .assert_eq(&table(&lines, &["direct", "sidecar"]));
    }

    #[test]
    fn a_page_keeps_what_stands_around_the_table() {
        let page = "a\n<!-- bench proxy: begin -->\nold\n<!-- bench proxy: end -->\nb\n";
        let wanted = "a\n<!-- bench proxy: begin -->\nnew\n<!-- bench proxy: end -->\nb\n";
        assert_eq!(insert(page, "new\n").as_deref(), Some(wanted));
        assert_eq!(insert("a\n", "new\n"), None);
    }
}
