//! Where the tokens of proxied rollouts came from.

use super::super::record::Cell;
use super::super::summary::Speculation;
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Figure, WIDTH};

const ROW: f64 = 44.0;
const SIDE: f64 = 12.0;
/// Drafters that have a colour of their own, by their number in the alphabet; the others share the last one's.
const COLOURS: usize = 5;

pub(super) fn figure(cells: &[&Cell]) -> Figure {
    let told: Vec<(&Cell, Vec<(String, f64)>)> =
        cells.iter().filter_map(|cell| Some((*cell, parts(cell.summary.speculation.as_ref()?)?))).collect();
    let mut drafters: Vec<&str> = told.iter().flat_map(|(_, parts)| parts).map(|(name, _)| name.as_str()).collect();
    drafters.retain(|name| !matches!(*name, "decoded" | "other"));
    drafters.sort_unstable();
    drafters.dedup();
    let class = |name: &str| match drafters.iter().position(|drafter| *drafter == name) {
        Some(place) => ["source-0", "source-1", "source-2", "source-3", "source-4"][place.min(COLOURS - 1)],
        None if name == "decoded" => "decode",
        None => "other",
    };
    let title = "Where proxied tokens came from".to_owned();
    if told.is_empty() {
        let caption = "Absent: the proxied server's metrics page does not tell whose drafts were accepted.".to_owned();
        return Figure { title, description: String::new(), legend: Vec::new(), drawing: None, caption };
    }
    let mut drawing = Drawing::new(ROW * told.len() as f64 + 4.0);
    let mut said = Vec::new();
    for (index, (cell, parts)) in told.iter().enumerate() {
        let top = ROW * index as f64;
        let whole: f64 = parts.iter().map(|(_, share)| share).sum();
        let across = Scale { values: (0.0, whole), places: (SIDE, WIDTH - SIDE) };
        drawing.text("label", (SIDE, top + 16.0), Anchor::Start, &format!("{} at a time", cell.concurrency));
        let mut begun = 0.0;
        for (name, share) in parts {
            let told = format!("{name} {:.0}%", 100.0 * share);
            let width = across.at(begun + share) - across.at(begun);
            drawing.bar(class(name), (across.at(begun), top + 22.0), (width, 16.0), &told);
            said.push(format!("{} at a time: {told}", cell.concurrency));
            begun += share;
        }
    }
    let names = drafters.iter().copied().chain(["decoded", "other"]);
    Figure {
        title,
        description: said.join("; "),
        legend: names.map(|name| (class(name), name.to_owned())).collect(),
        drawing: Some(drawing),
        caption:
            "Shares of the output: accepted drafts by who made them, tokens decoded without a draft, and others, which \
                  are the target's own tokens of verified rounds and requests that were forwarded."
                .to_owned(),
    }
}

/// Shares of the output, in the order of the bar.
fn parts(speculation: &Speculation) -> Option<Vec<(String, f64)>> {
    let mut parts: Vec<(String, f64)> = speculation.accepted_by_drafter.clone()?.into_iter().collect();
    parts.push(("decoded".to_owned(), speculation.decoded_share.unwrap_or(0.0)));
    let known: f64 = parts.iter().map(|(_, share)| share).sum();
    parts.push(("other".to_owned(), (1.0 - known).max(0.0)));
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    #[test]
    fn shares_make_up_the_whole_output() {
        let cell = fixture::cell(1, vec![fixture::pair(1.5)]);
        let parts = parts(cell.summary.speculation.as_ref().unwrap()).unwrap();
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["neural", "replay", "decoded", "other"]);
        assert!((parts.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
        let html = figure(&[&cell]).html();
        assert!(html.contains("neural 40%") && html.contains("class=\"source-1\""), "{html}");
    }
}
