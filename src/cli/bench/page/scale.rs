//! From values to places on a figure, and round numbers for its axis.

/// A straight map of values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub values: (f64, f64),
    pub places: (f64, f64),
}

impl Scale {
    pub(super) fn at(&self, value: f64) -> f64 {
        let ((low, high), (start, end)) = (self.values, self.places);
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        start + share * (end - start)
    }
}

/// About `count` round numbers from `low` to `high`, both included where they are round.
pub(super) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let step = step(high - low, count);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// The smallest round number that covers `high` from 0 by whole steps.
pub(super) fn round_up(high: f64, count: usize) -> f64 {
    let step = step(high, count);
    (high / step - 1e-9).ceil().max(1.0) * step
}

/// 1, 2 or 5 times a power of ten, of which about `count` fit into `span`.
fn step(span: f64, count: usize) -> f64 {
    let rough = if span.is_finite() && span > 0.0 { span / count as f64 } else { 1.0 };
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999).unwrap_or(power)
}

/// A number with as many digits as a reader can use.
pub(super) fn short(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0, 7.0, 4), [0.0, 2.0, 4.0, 6.0]);
        let ratios: Vec<String> = ticks(0.93, 1.31, 4).into_iter().map(short).collect();
        assert_eq!(ratios, ["1", "1.1", "1.2", "1.3"]);
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_its_values() {
        assert_eq!(round_up(83.0, 4), 100.0);
        assert_eq!(round_up(0.61, 4), 0.8);
        assert_eq!(round_up(100.0, 5), 100.0);
        assert_eq!(round_up(0.0, 4), 1.0);
    }

    #[test]
    fn a_scale_maps_ends_to_ends() {
        let scale = Scale { values: (0.0, 10.0), places: (100.0, 0.0) };
        assert_eq!((scale.at(0.0), scale.at(2.5), scale.at(10.0)), (100.0, 75.0, 0.0));
        let point = Scale { values: (1.0, 1.0), places: (0.0, 10.0) };
        assert_eq!(point.at(1.0), 5.0);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1234.5, 12.34, 1.2, 1.0, 0.0].map(short), ["1234", "12.3", "1.2", "1", "0"]);
    }
}
