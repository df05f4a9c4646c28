//! Medians and spreads.

use std::time::Duration;

/// The value below which the share `part` of `values` lies; nothing of nothing.
pub(super) fn percentile(values: &[Duration], part: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// What the rounds came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Summary {
    /// Nothing where there were no rounds.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper };
        Some(Self { median, least: sorted[0], most: sorted[sorted.len() - 1] })
    }

    /// Of the rounds' own ratios: what disturbs a round disturbs both of its sides.
    pub(super) fn of_ratios(values: &[f64], to: &[f64]) -> Option<Self> {
        Self::of(&values.iter().zip(to).map(|(value, to)| value / to).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_micros(100));
        assert_eq!(percentile(&values, 0.99), Duration::from_micros(198));
        assert_eq!(percentile(&values[..1], 0.5), Duration::from_micros(200));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]), Some(Summary { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let ratio = Summary::of_ratios(&[2.0, 40.0, 6.0], &[1.0, 20.0, 3.0]);
        assert_eq!(ratio, Some(Summary { median: 2.0, least: 2.0, most: 2.0 }));
    }
}
