//! Tokens per second by concurrency, of both arms.

use super::super::record::{Arm, Cell};
use super::super::stats::sorted;
use super::super::summary::ArmSummary;
use super::scale::{Scale, round_up, short, ticks};
use super::svg::{Anchor, Drawing, Figure, WIDTH};

const HEIGHT: f64 = 240.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 40.0;

pub(super) fn figure(cells: &[&Cell]) -> Figure {
    let mut drawing = Drawing::new(HEIGHT);
    let rates = |arm: &ArmSummary| arm.rounds_tokens_per_second.clone();
    let highest = cells.iter().flat_map(|cell| [&cell.summary.direct, &cell.summary.proxied]).flatten();
    let highest = round_up(highest.flat_map(rates).fold(0.0, f64::max), 4);
    let across = Scale { values: (-0.5, cells.len() as f64 - 0.5), places: (LEFT, WIDTH - 8.0) };
    let up = Scale { values: (0.0, highest), places: (BOTTOM, TOP) };
    for tick in ticks(0.0, highest, 4) {
        drawing.line("grid", (LEFT, up.at(tick)), (WIDTH - 8.0, up.at(tick)));
        drawing.text("tick", (LEFT - 6.0, up.at(tick) + 4.0), Anchor::End, &short(tick));
    }
    for (index, cell) in cells.iter().enumerate() {
        let x = across.at(index as f64);
        drawing.text("tick", (x, BOTTOM + 16.0), Anchor::Middle, &cell.concurrency.to_string());
    }
    drawing.text("tick", ((LEFT + WIDTH) / 2.0, HEIGHT - 6.0), Anchor::Middle, "rollouts at a time");
    let mut said = Vec::new();
    for (arm, shift) in [(Arm::Direct, -4.0), (Arm::Proxied, 4.0)] {
        let class = arm.name();
        let mut points = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            let Some(summary) = cell.summary.of_arm(arm) else { continue };
            let rates = sorted(&summary.rounds_tokens_per_second);
            let (Some(median), [low, .., high] | [low @ high]) = (summary.tokens_per_second, &rates[..]) else {
                continue;
            };
            let x = across.at(index as f64) + shift;
            drawing.line(&format!("{class} whisker"), (x, up.at(*low)), (x, up.at(*high)));
            let told = format!("{class}, {} at a time: {} tokens/s", cell.concurrency, short(median));
            drawing.dot(class, (x, up.at(median)), 4.5, &format!("{told} ({}..{})", short(*low), short(*high)));
            points.push((x, up.at(median)));
            said.push(told);
        }
        drawing.path(class, &points);
    }
    Figure {
        title: "Tokens per second by concurrency".to_owned(),
        description: said.join("; "),
        legend: vec![("direct", "direct".to_owned()), ("proxied", "proxied".to_owned())],
        drawing: Some(drawing),
        caption: "Medians of rounds; whiskers go from the slowest to the fastest round.".to_owned(),
    }
}
