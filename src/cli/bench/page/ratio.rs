//! The ratio of each pair, a row for each concurrency, beside the line where both arms are equal.

use super::super::comparison::{Comparison, Ratio};
use super::super::record::Cell;
use super::scale::{Scale, short, ticks};
use super::svg::{Anchor, Drawing, Figure, WIDTH};

/// Which ratio to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Speed,
    Makespan,
}

impl Of {
    fn ratio(self, cell: &Cell) -> Result<&Ratio, &str> {
        match (&cell.summary.comparison, self) {
            (Comparison::Paired { speed, .. }, Self::Speed) => Ok(speed),
            (Comparison::Paired { makespan, .. }, Self::Makespan) => Ok(makespan),
            (Comparison::Unpaired { no_ratio }, _) => Err(no_ratio),
        }
    }

    /// The smallest and the largest ratio of all cells, and 1 between them, so that figures can share an axis.
    pub(super) fn domain(self, cells: &[Cell]) -> (f64, f64) {
        let ratios = cells.iter().filter_map(|cell| self.ratio(cell).ok());
        let (low, high) = ratios
            .fold((0.95f64, 1.05f64), |(low, high), ratio| (low.min(ratio.spread.min), high.max(ratio.spread.max)));
        let margin = 0.03 * (high - low);
        ((low - margin).max(0.0), high + margin)
    }
}

const ROW: f64 = 44.0;
const SIDE: f64 = 12.0;

pub(super) fn figure(cells: &[&Cell], of: Of, domain: (f64, f64)) -> Figure {
    let height = ROW * cells.len() as f64 + 26.0;
    let scale = Scale { values: domain, places: (SIDE, WIDTH - SIDE) };
    let mut drawing = Drawing::new(height);
    let bottom = height - 22.0;
    for tick in ticks(domain.0, domain.1, 6) {
        drawing.line("grid", (scale.at(tick), 4.0), (scale.at(tick), bottom));
        drawing.text("tick", (scale.at(tick), height - 7.0), Anchor::Middle, &short(tick));
    }
    drawing.line("equal", (scale.at(1.0), 4.0), (scale.at(1.0), bottom));
    let mut said = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let (text, middle) = (ROW * index as f64 + 16.0, ROW * index as f64 + 30.0);
        drawing.text("label", (SIDE, text), Anchor::Start, &format!("{} at a time", cell.concurrency));
        match of.ratio(cell) {
            Ok(ratio) => {
                let spread = &ratio.spread;
                let told = format!("{:.2} ({:.2}..{:.2})", spread.median, spread.min, spread.max);
                drawing.text("value", (WIDTH - SIDE, text), Anchor::End, &told);
                drawing.line("spread", (scale.at(spread.min), middle), (scale.at(spread.max), middle));
                let (low, high) = spread.interval;
                drawing.line("interval", (scale.at(low), middle), (scale.at(high), middle));
                for (number, pair) in ratio.pairs.iter().enumerate() {
                    let tip = format!("pair {}: {pair:.3}", number + 1);
                    drawing.dot("pair", (scale.at(*pair), middle), 3.0, &tip);
                }
                drawing.dot("median", (scale.at(spread.median), middle), 5.5, &told);
                said.push(format!("{} at a time: {told}", cell.concurrency));
            }
            Err(why) => {
                drawing.text("value", (WIDTH - SIDE, text), Anchor::End, "no ratio");
                said.push(format!("{} at a time: no ratio, {why}", cell.concurrency));
            }
        }
    }
    let (title, better) = match of {
        Of::Speed => ("Ratio of tokens/s, proxied to direct", "right of 1 the sidecar is faster"),
        Of::Makespan => ("Ratio of time until the last rollout ends", "left of 1 the sidecar is faster"),
    };
    let sure = cells.iter().find_map(|cell| Some(of.ratio(cell).ok()?.spread.confidence));
    let interval = sure.map_or_else(String::new, |sure| {
        format!(" The thick line holds the true median with a probability of {:.1}%.", 100.0 * sure)
    });
    Figure {
        title: title.to_owned(),
        description: said.join("; "),
        legend: vec![("median", "median of pairs".to_owned()), ("pair", "a pair".to_owned())],
        drawing: Some(drawing),
        caption: format!("Each pair's two rounds ran one right after the other; {better}.{interval}"),
    }
}
