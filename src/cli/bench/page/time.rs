//! Where the time of proxied rollouts went.

use super::super::record::Cell;
use super::super::summary::TimeShare;
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Figure, WIDTH};

const ROW: f64 = 44.0;
const SIDE: f64 = 12.0;

pub(super) fn figure(cells: &[&Cell]) -> Figure {
    let told: Vec<(&Cell, TimeShare)> =
        cells.iter().filter_map(|cell| Some((*cell, cell.summary.speculation.as_ref()?.time))).collect();
    let known = told.iter().flat_map(|(_, time)| parts(time));
    let any = known.clone().any(|(_, seconds)| seconds.is_some());
    let mut absent: Vec<&str> = known.filter(|(_, seconds)| seconds.is_none()).map(|(name, _)| name).collect();
    absent.sort_unstable();
    absent.dedup();
    let missing = match &absent[..] {
        [] => String::new(),
        names => format!(" Absent from the metrics page of at least one of them: {}.", names.join(", ")),
    };
    let legend = ["draft", "verify", "decode", "other"].map(|part| (part, part.to_owned())).to_vec();
    let (drawing, description) = if any { draw(&told) } else { (Drawing::new(0.0), String::new()) };
    Figure {
        title: "Time of a proxied rollout".to_owned(),
        description,
        legend: if any { legend } else { Vec::new() },
        drawing: any.then_some(drawing),
        caption: if any {
            format!(
                "Shares of the rollouts' time, by the sidecar's own clocks. Where parts overlap they are drawn to their \
                 sum, and nothing is left for other.{missing}"
            )
        } else {
            "Absent: the proxied server's metrics page does not tell where time went.".to_owned()
        },
    }
}

fn parts(time: &TimeShare) -> [(&'static str, Option<f64>); 3] {
    [("draft", time.draft), ("verify", time.verify), ("decode", time.decode)]
}

fn draw(told: &[(&Cell, TimeShare)]) -> (Drawing, String) {
    let mut drawing = Drawing::new(ROW * told.len() as f64 + 4.0);
    let mut said = Vec::new();
    for (index, (cell, time)) in told.iter().enumerate() {
        let top = ROW * index as f64;
        let known: f64 = parts(time).iter().filter_map(|(_, seconds)| *seconds).sum();
        let whole = known.max(time.rollouts);
        let across = Scale { values: (0.0, whole), places: (SIDE, WIDTH - SIDE) };
        drawing.text("label", (SIDE, top + 16.0), Anchor::Start, &format!("{} at a time", cell.concurrency));
        let rollouts = cell.summary.proxied.as_ref().map_or(0, |proxied| proxied.rollouts).max(1);
        let each = format!("{:.2} s a rollout", time.rollouts / rollouts as f64);
        drawing.text("value", (WIDTH - SIDE, top + 16.0), Anchor::End, &each);
        let other = ("other", (whole > known).then_some(whole - known));
        let mut begun = 0.0;
        for (part, seconds) in parts(time).into_iter().chain([other]) {
            let Some(seconds) = seconds else { continue };
            let told = format!("{part} {:.0}%", 100.0 * seconds / time.rollouts);
            let place = (across.at(begun), top + 22.0);
            drawing.bar(part, place, (across.at(begun + seconds) - across.at(begun), 16.0), &told);
            said.push(format!("{} at a time: {told}", cell.concurrency));
            begun += seconds;
        }
    }
    (drawing, said.join("; "))
}
