//! Order statistics of few numbers.

use serde::{Deserialize, Serialize};

/// How sure the interval of a median should be.
const CONFIDENCE: f64 = 0.95;

/// A median with all that few measurements tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Holds the true median with probability `confidence`, whatever the distribution.
    pub interval: (f64, f64),
    /// At least 0.95, or what min..max gives where that is less: 0.9375 for five measurements.
    pub confidence: f64,
}

impl Spread {
    /// Of measurements that are independent and alike; none for no measurements.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (drop, confidence) = median_interval(sorted.len());
        let interval = (sorted[drop], sorted[sorted.len() - 1 - drop]);
        Some(Self { median: quantile(&sorted, 0.5)?, min, max, interval, confidence })
    }
}

/// Of `n` sorted measurements, how many may be left out at each end so that the rest still span the true median with
/// probability 0.95, and the exact probability.
///
/// The median lies below the (k+1)-th smallest measurement if at most k of n fall below it, which has the probability
/// of k or fewer heads in n throws of a fair coin; the same holds at the other end.
fn median_interval(n: usize) -> (usize, f64) {
    let mut heads = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut tail, mut best) = (heads, (0, 1.0 - 2.0 * heads));
    for k in 1..n.div_ceil(2) {
        heads *= (n - k + 1) as f64 / k as f64;
        tail += heads;
        let confidence = 1.0 - 2.0 * tail;
        if confidence < CONFIDENCE {
            break;
        }
        best = (k, confidence);
    }
    (best.0, best.1.max(0.0))
}

/// The `share`-quantile of sorted values, between the two nearest of them.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

/// The middle of `values`; none of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// The mean of `values`; none of none.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The values from the smallest to the largest.
pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_mind_the_order_or_one_outlier() {
        assert_eq!(median(&[3.0, 1.0, 1000.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn quantiles_lie_between_the_nearest_values() {
        let values = [0.0, 10.0, 20.0, 30.0, 40.0];
        assert_eq!(quantile(&values, 0.0), Some(0.0));
        assert_eq!(quantile(&values, 0.9), Some(36.0));
        assert_eq!(quantile(&values, 1.0), Some(40.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn five_measurements_span_their_median_with_fifteen_in_sixteen() {
        let spread = Spread::of(&[1.2, 1.0, 1.1, 1.4, 1.3]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (1.2, 1.0, 1.4));
        assert_eq!((spread.interval, spread.confidence), ((1.0, 1.4), 0.9375));
    }

    #[test]
    fn many_measurements_give_a_narrower_interval_that_holds_its_promise() {
        // Tables of the sign test: of 8 the extremes span with 0.992 and the next with 0.930; of 9 the next with 0.961.
        let values: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(Spread::of(&values[..8]).unwrap().interval, (1.0, 8.0));
        let spread = Spread::of(&values).unwrap();
        assert_eq!(spread.interval, (2.0, 8.0));
        assert!((spread.confidence - (1.0 - 20.0 / 512.0)).abs() < 1e-12, "{}", spread.confidence);
    }

    #[test]
    fn one_measurement_promises_nothing() {
        let spread = Spread::of(&[2.0]).unwrap();
        assert_eq!((spread.interval, spread.confidence), ((2.0, 2.0), 0.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn the_interval_covers_the_median_as_often_as_it_says() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(5);
        let (trials, mut covered) = (4000, 0);
        let mut promised = 0.0;
        for _ in 0..trials {
            // A skew distribution whose median is ln 2.
            let values: Vec<f64> = (0..11).map(|_| -rng.random::<f64>().ln()).collect();
            let spread = Spread::of(&values).unwrap();
            promised = spread.confidence;
            let (low, high) = spread.interval;
            covered += usize::from(low <= 2f64.ln() && 2f64.ln() <= high);
        }
        let seen = covered as f64 / f64::from(trials);
        assert!((seen - promised).abs() < 0.015, "{seen} where {promised} was promised");
    }
}
