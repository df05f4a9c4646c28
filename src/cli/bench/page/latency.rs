//! How long rollouts took, as a cumulative distribution stretched towards its tail.

use super::super::record::{Arm, Cell};
use super::super::stats::sorted;
use super::super::summary::{latencies, sound};
use super::scale::{Scale, round_up, short, ticks};
use super::svg::{Anchor, Drawing, Figure, WIDTH};

const HEIGHT: f64 = 220.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 38.0;

pub(super) fn figure(cell: &Cell) -> Figure {
    let of = |arm| sorted(&latencies(&sound(&cell.pairs, arm)));
    let arms = [(Arm::Direct, of(Arm::Direct)), (Arm::Proxied, of(Arm::Proxied))];
    let longest = arms.iter().filter_map(|(_, values)| values.last()).copied().fold(0.0, f64::max);
    let most = arms.iter().map(|(_, values)| values.len()).max().unwrap_or_default();
    let right = round_up(longest, 4);
    let across = Scale { values: (0.0, right), places: (LEFT, WIDTH - 14.0) };
    let up = Scale { values: (0.0, stretched(most, most + 1)), places: (BOTTOM, TOP) };
    let mut drawing = Drawing::new(HEIGHT);
    for (share, name) in [(0, "0"), (500, "50%"), (900, "90%"), (990, "99%"), (999, "99.9%")] {
        let y = up.at(stretched(share, 1000));
        if y >= TOP {
            drawing.line("grid", (LEFT, y), (WIDTH - 14.0, y));
            drawing.text("tick", (LEFT - 6.0, y + 4.0), Anchor::End, name);
        }
    }
    for tick in ticks(0.0, right, 5) {
        drawing.text("tick", (across.at(tick), BOTTOM + 16.0), Anchor::Middle, &short(tick));
    }
    drawing.text("tick", ((LEFT + WIDTH) / 2.0, HEIGHT - 5.0), Anchor::Middle, "seconds");
    for (arm, values) in &arms {
        drawing.path(arm.name(), &steps(values, &across, &up));
        if let Some(last) = values.last() {
            let end = (across.at(*last), up.at(stretched(values.len(), values.len() + 1)));
            drawing.dot(arm.name(), end, 3.5, &format!("{}: the longest took {} s", arm.name(), short(*last)));
        }
    }
    let said = arms.iter().filter_map(|(arm, _)| {
        let latency = cell.summary.of_arm(*arm)?.latency?;
        let (p50, p90, p99, max) = (latency.p50, latency.p90, latency.p99, latency.max);
        let [p50, p90, p99, max] = [p50, p90, p99, max].map(short);
        Some(format!("{}: p50 {p50} s, p90 {p90} s, p99 {p99} s, longest {max} s", arm.name()))
    });
    let said = said.collect::<Vec<_>>().join("; ");
    Figure {
        title: format!("Rollout latency, {} at a time", cell.concurrency),
        description: said.clone(),
        legend: vec![("direct", "direct".to_owned()), ("proxied", "proxied".to_owned())],
        drawing: Some(drawing),
        caption: format!("Rollouts that took no longer, on an axis where each nine has the same height. {said}."),
    }
}

/// The height of `part` of `whole`: its nines.
fn stretched(part: usize, whole: usize) -> f64 {
    -(1.0 - part as f64 / whole as f64).log10()
}

/// The distribution of sorted values as stairs. The i-th of n stands for i of n + 1, so that the longest is not infinitely
/// rare.
fn steps(sorted: &[f64], across: &Scale, up: &Scale) -> Vec<(f64, f64)> {
    let mut points = vec![(across.at(0.0), up.at(0.0))];
    for (index, value) in sorted.iter().enumerate() {
        let x = across.at(*value);
        points.push((x, up.at(stretched(index, sorted.len() + 1))));
        points.push((x, up.at(stretched(index + 1, sorted.len() + 1))));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_has_the_same_height() {
        assert_eq!(stretched(0, 1000), 0.0);
        assert!((stretched(900, 1000) - 1.0).abs() < 1e-12 && (stretched(999, 1000) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_stairs_rise_at_each_value() {
        let scale = Scale { values: (0.0, 1.0), places: (0.0, 1.0) };
        let points = steps(&[2.0, 5.0], &scale, &scale);
        let heights: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
        assert_eq!(points.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [0.0, 2.0, 2.0, 5.0, 5.0]);
        assert_eq!((heights[0], heights[1], heights[2] == heights[3]), (0.0, 0.0, true));
        assert!(heights[4] > heights[3] && heights[4].is_finite());
    }
}
