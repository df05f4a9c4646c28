//! A quantity as a function of the load it was measured under.

/// Buckets of load, each twice as wide as the last: 1, 2, 3–4, 5–8, …
const BUCKETS: usize = 14;
/// What a bucket remembers, in units of weight: older measurements fade as newer ones come.
const MEMORY: f64 = 64.0;
/// A bucket that knows as much as this is trusted: a single value may be a stall of the machine.
const SETTLED: f64 = 8.0;
/// In a settled bucket, a value above so many times the mean counts as that much.
const OUTLIER: f64 = 3.0;
/// So many such values in a row are no stalls: then it is the mean that was wrong.
const PERSISTENT: u32 = 4;
/// How much a higher value counts where measurements are disturbed upwards.
const UPWARDS: f64 = 0.25;

/// Means by load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    points: [Point; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Point {
    load: f64,
    value: f64,
    weight: f64,
    /// Outliers in a row.
    outliers: u32,
}

fn bucket(load: f64) -> usize {
    (load.max(1.0).log2().ceil() as usize).min(BUCKETS - 1)
}

impl Curve {
    /// Takes in a value that was measured at `load`, as good as `weight` single ones.
    pub fn observe(&mut self, load: f64, value: f64, weight: f64) {
        self.take_in(load, value, weight, 1.0);
    }

    /// The same where whatever disturbs a measurement makes it larger: higher values count for less than lower ones, so what
    /// is remembered lies below the mean, near what an undisturbed measurement gives.
    pub fn observe_disturbed(&mut self, load: f64, value: f64, weight: f64) {
        self.take_in(load, value, weight, UPWARDS);
    }

    fn take_in(&mut self, load: f64, value: f64, weight: f64, upwards: f64) {
        let point = &mut self.points[bucket(load)];
        let limit = if point.weight >= SETTLED { OUTLIER * point.value } else { f64::INFINITY };
        point.outliers = if value > limit { point.outliers + 1 } else { 0 };
        if point.outliers >= PERSISTENT {
            *point = Point { load, value, weight, outliers: 0 };
            return;
        }
        let value = value.min(limit);
        point.weight = (point.weight + weight).min(MEMORY);
        let share = (weight / point.weight).min(1.0);
        let pace = if value > point.value && share < 1.0 { upwards } else { 1.0 };
        point.value += pace * share * (value - point.value);
        point.load += share * (load - point.load);
    }

    /// How much is known about this load itself; old measurements fade.
    #[must_use]
    pub fn weight_at(&self, load: f64) -> f64 {
        self.points[bucket(load)].weight
    }

    /// The value at `load`: between known points by a straight line, beyond them that of the nearest.
    #[must_use]
    pub fn at(&self, load: f64) -> Option<f64> {
        let mut below: Option<&Point> = None;
        for point in self.known() {
            if point.load >= load {
                return Some(match below {
                    None => point.value,
                    Some(below) => {
                        let way = (load - below.load) / (point.load - below.load).max(f64::EPSILON);
                        below.value + way * (point.value - below.value)
                    }
                });
            }
            below = Some(point);
        }
        below.map(|point| point.value)
    }

    /// How much the value grows with each unit of load, by least squares over the known points; never negative, and 0
    /// while a single point is known.
    #[must_use]
    pub fn slope(&self) -> f64 {
        let count = self.known().count() as f64;
        if count < 2.0 {
            return 0.0;
        }
        let mean_load = self.known().map(|point| point.load).sum::<f64>() / count;
        let mean_value = self.known().map(|point| point.value).sum::<f64>() / count;
        let covariance: f64 = self.known().map(|p| (p.load - mean_load) * (p.value - mean_value)).sum();
        let variance: f64 = self.known().map(|p| (p.load - mean_load).powi(2)).sum();
        (covariance / variance.max(f64::EPSILON)).max(0.0)
    }

    /// Whether values of at least this weight are known both below and above `load`.
    #[must_use]
    pub fn surrounds(&self, load: f64, weight: f64) -> bool {
        let known = || self.points.iter().filter(move |point| point.weight >= weight);
        known().any(|point| point.load <= load) && known().any(|point| point.load >= load)
    }

    fn known(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| point.weight > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_between_the_loads_that_were_measured() {
        let mut curve = Curve::default();
        for load in [1.0, 2.0, 4.0, 16.0, 64.0] {
            (0..10).for_each(|_| curve.observe(load, 6.0 + 0.5 * load, 1.0));
        }
        assert!((curve.at(10.0).unwrap() - 11.0).abs() < 1e-9);
        assert!((curve.slope() - 0.5).abs() < 1e-9);
        assert_eq!(curve.at(1000.0), curve.at(64.0), "beyond what was measured, nothing is made up");
        assert_eq!(Curve::default().at(1.0), None);
    }

    #[test]
    fn disturbed_measurements_are_remembered_by_the_lower_ones_and_a_lasting_change_is_followed() {
        let mut curve = Curve::default();
        (0..300).for_each(|index| curve.observe_disturbed(1.0, if index % 3 == 0 { 10.0 } else { 14.0 }, 1.0));
        assert!(curve.at(1.0).unwrap() < 11.7);
        (0..1000).for_each(|_| curve.observe_disturbed(1.0, 20.0, 1.0));
        assert!((curve.at(1.0).unwrap() - 20.0).abs() < 0.5);
    }

    #[test]
    fn a_mean_that_was_wrong_from_the_beginning_is_given_up() {
        let mut curve = Curve::default();
        (0..10).for_each(|_| curve.observe_disturbed(1.0, 0.00001, 1.0));
        (0..PERSISTENT).for_each(|_| curve.observe_disturbed(1.0, 0.018, 1.0));
        assert_eq!(curve.at(1.0), Some(0.018));
    }

    #[test]
    fn a_stall_moves_a_settled_mean_by_little_and_a_lasting_change_by_all_of_it() {
        let mut curve = Curve::default();
        (0..64).for_each(|_| curve.observe(1.0, 10.0, 1.0));
        curve.observe(1.0, 10_000.0, 1.0);
        assert!(curve.at(1.0).unwrap() < 10.5);
        (0..400).for_each(|_| curve.observe(1.0, 20.0, 1.0));
        assert!((curve.at(1.0).unwrap() - 20.0).abs() < 0.1);
    }
}
