//! How many of the drafts at each position were accepted.

use super::super::counters::Counters;
use super::super::record::Cell;
use super::super::summary::acceptance_by_position;
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Figure, WIDTH};

const HEIGHT: f64 = 200.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 36.0;

pub(super) fn figure(cells: &[&Cell]) -> Figure {
    let counted = cells.iter().filter_map(|cell| Some(&cell.summary.speculation.as_ref()?.counters));
    let counters = counted.cloned().reduce(|a, b| a.plus(&b)).unwrap_or_default();
    let rates = acceptance_by_position(&counters);
    let drawing = rates.as_ref().map(|rates| draw(rates, &counters));
    let described = |rates: Vec<f64>| rates.iter().map(|rate| percent(*rate)).collect::<Vec<_>>().join(", ");
    let length = match (counters.accepted_tokens, counters.drafts) {
        (Some(accepted), Some(drafts)) if drafts > 0.0 => {
            format!(" A verified proposal brought {:.2} tokens on average.", accepted / drafts + 1.0)
        }
        _ => String::new(),
    };
    Figure {
        title: "Acceptance by position".to_owned(),
        description: rates.map_or_else(String::new, |rates| format!("From the first position: {}", described(rates))),
        legend: Vec::new(),
        caption: if drawing.is_some() {
            format!(
                "Of the drafts at a position, those accepted, which needs all before it to be accepted too; all \
                 concurrencies together.{length}"
            )
        } else {
            format!("Absent: the proxied server's metrics page does not tell drafts by position.{length}")
        },
        drawing,
    }
}

fn draw(rates: &[f64], counters: &Counters) -> Drawing {
    let mut drawing = Drawing::new(HEIGHT);
    let up = Scale { values: (0.0, 1.0), places: (BOTTOM, TOP) };
    let slot = (WIDTH - 8.0 - LEFT) / rates.len() as f64;
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        drawing.line("grid", (LEFT, up.at(tick)), (WIDTH - 8.0, up.at(tick)));
        drawing.text("tick", (LEFT - 6.0, up.at(tick) + 4.0), Anchor::End, &percent(tick));
    }
    // Where many positions are drawn, every other label would touch its neighbour.
    let every = rates.len().div_ceil(16);
    for (position, rate) in rates.iter().enumerate() {
        let x = LEFT + slot * position as f64;
        let drafted = counters.drafted_by_position.as_ref().and_then(|drafted| drafted.get(&position.to_string()));
        let tip = format!("position {}: {} of {} drafts", position + 1, percent(*rate), drafted.unwrap_or(&0.0));
        let wide = (slot * 0.8).min(36.0);
        drawing.bar("proxied", (x + (slot - wide) / 2.0, up.at(*rate)), (wide, BOTTOM - up.at(*rate)), &tip);
        if position % every == 0 {
            let place = (x + slot / 2.0, BOTTOM + 15.0);
            drawing.text("tick", place, Anchor::Middle, &(position + 1).to_string());
        }
    }
    drawing.text("tick", ((LEFT + WIDTH) / 2.0, HEIGHT - 4.0), Anchor::Middle, "position in the proposal");
    drawing
}

fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}
