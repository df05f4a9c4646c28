//! The page: what was measured, for a reader on a phone as on a wide screen. It needs no other file and no script.

mod latency;
mod positions;
mod ratio;
mod scale;
mod sources;
mod speed;
mod svg;
mod time;

use std::fmt::Write as _;

use super::record::{Cell, Epochs, Report, Server};
use super::table;
use ratio::Of;
use svg::escape;

const STYLE: &str = include_str!("style.css");

/// The report as a page.
pub(super) fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Sidedraft benchmark</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Sidedraft benchmark</h1>\n"
    );
    // Writing into a string does not fail.
    let _ = writeln!(page, "<p class=\"about\">{}</p>", escape(&about(report)));
    if !report.finished {
        page.push_str("<p class=\"warning\">The run has not finished: what follows is what there is so far.</p>\n");
    }
    page.push_str(&numbers(report));
    for cells in groups(&report.cells) {
        page.push_str(&section(&cells, report));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Cells of one workload, temperature and epoch, in their order.
fn groups(cells: &[Cell]) -> Vec<Vec<&Cell>> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        let alike = |group: &&mut Vec<&Cell>| {
            let key = |cell: &Cell| (cell.workload.clone(), cell.temperature, cell.epoch);
            group.first().is_some_and(|first| key(first) == key(cell))
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups
}

fn about(report: &Report) -> String {
    let load = &report.load;
    let server = |server: &Server| {
        let version = server.version.as_deref().map_or_else(String::new, |version| format!(" on vLLM {version}"));
        format!("{}{version}", server.model)
    };
    let target = report.direct.as_ref().or(report.proxied.as_ref()).map_or_else(String::new, server);
    let shape = if let Some(Epochs { epochs, steps, prompts, samples, .. }) = report.epochs {
        &format!(
            "{epochs} epochs of {steps} steps, each of {prompts} prompts with {samples} rollouts, of which a new one \
             started whenever one ended"
        )
    } else if load.together {
        "all rollouts of a round started together"
    } else {
        "a new rollout started whenever one ended"
    };
    let replies = if load.stream { "streamed" } else { "whole replies" };
    let salts = match (load.cache_salt, &report.epochs) {
        (false, _) => "no cache salt",
        (true, None) => "a cache salt for each round",
        (true, Some(_)) => "a cache salt for each side and concurrency",
    };
    format!(
        "{target}, sidedraft {}. {} pairs of rounds, one direct and one proxied with the same rollouts, in alternating \
         order; {shape}, {replies}, {salts}.",
        report.sidedraft, load.rounds
    )
}

fn numbers(report: &Report) -> String {
    let mut html = "<h2>Numbers</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Numbers\">\
                    <table>\n"
        .to_owned();
    for (index, row) in table::rows(report).iter().enumerate() {
        let tag = if index == 0 { "th scope=\"col\"" } else { "td" };
        let end = if index == 0 { "th" } else { "td" };
        let fields: String = row.iter().map(|field| format!("<{tag}>{}</{end}>", escape(field))).collect();
        let _ = writeln!(html, "<tr>{fields}</tr>");
    }
    html.push_str("</table></div>\n<ul class=\"remarks\">\n");
    for remark in table::remarks(report) {
        let _ = writeln!(html, "<li>{}</li>", escape(&remark));
    }
    html.push_str("</ul>\n");
    html
}

fn section(cells: &[&Cell], report: &Report) -> String {
    let Some(first) = cells.first() else { return String::new() };
    let temperature = first.temperature.map_or_else(String::new, |temperature| format!(", temperature {temperature}"));
    let epoch = first.epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
    let title = escape(&format!("{}{temperature}{epoch}", first.workload));
    let mut html = format!("<h2>{title}</h2>\n<div class=\"figures\">\n");
    let both = report.direct.is_some() && report.proxied.is_some();
    let ratios: &[Of] = match (both, report.load.together || report.epochs.is_some()) {
        (false, _) => &[],
        (true, false) => &[Of::Speed],
        (true, true) => &[Of::Makespan, Of::Speed],
    };
    for of in ratios {
        html.push_str(&ratio::figure(cells, *of, of.domain(&report.cells)).html());
    }
    html.push_str(&speed::figure(cells).html());
    if report.proxied.is_some() {
        html.push_str(&positions::figure(cells).html());
        html.push_str(&time::figure(cells).html());
        html.push_str(&sources::figure(cells).html());
    }
    for cell in cells {
        html.push_str(&latency::figure(cell).html());
    }
    html.push_str("</div>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::super::{counters::Counters, fixture, summary::Summary};
    use super::*;

    const RATIO: &str = "<h3>Ratio of tokens/s, proxied to direct</h3>";

    #[test]
    fn the_page_has_every_figure_and_asks_nobody_for_anything() {
        let page = render(&fixture::mixed());
        for title in [
            RATIO,
            "<h3>Tokens per second by concurrency</h3>",
            "<h3>Acceptance by position</h3>",
            "<h3>Time of a proxied rollout</h3>",
            "<h3>Where proxied tokens came from</h3>",
            "<h3>Rollout latency, 1 at a time</h3>",
            "<h3>Rollout latency, 4 at a time</h3>",
        ] {
            assert_eq!(page.matches(title).count(), 1, "{title}");
        }
        assert_eq!(page.matches("<svg role=\"img\"").count(), 7);
        for outside in ["http", "src=", "href", "url(", "@import", "<script", "<link", "<iframe"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn figures_show_what_was_measured() {
        let page = render(&fixture::mixed());
        assert!(page.contains("1.60 (1.50..2.00)") && page.contains("pair 2: 2.000"), "{page}");
        assert!(page.contains("position 2: 60% of 40 drafts"), "{page}");
        assert!(page.contains("proxied, 1 at a time: 16 tokens/s"), "{page}");
        assert!(page.contains("no ratio, round 2 of the proxied arm is void"), "{page}");
    }

    #[test]
    fn one_server_alone_has_no_figure_of_a_ratio() {
        let mut report = fixture::mixed();
        report.direct = None;
        assert!(!render(&report).contains(RATIO));
    }

    #[test]
    fn what_the_metrics_page_did_not_tell_is_said_to_be_absent() {
        let mut pair = fixture::pair(1.0);
        if let Some(round) = &mut pair.proxied {
            round.counters = Some(Counters::default());
        }
        let mut cell = fixture::cell(1, Vec::new());
        cell.pairs = vec![pair];
        cell.summary = Summary::of(&cell.pairs);
        let page = render(&fixture::report(vec![cell]));
        assert!(page.contains("metrics page does not tell drafts by position"), "{page}");
        assert!(page.contains("does not tell where time went"), "{page}");
        assert_eq!(page.matches("<svg").count(), 3);
    }

    #[test]
    fn a_run_that_was_cut_short_says_so() {
        let mut report = fixture::mixed();
        assert!(!render(&report).contains("has not finished"));
        report.finished = false;
        assert!(render(&report).contains("has not finished"));
    }
}
