//! A straight line through measurements: a fixed cost and a cost for each unit.

/// What a measurement is worth after the next one has come: the last fifty or so count.
const FADING: f64 = 0.98;
/// The belief before any measurement, as two points at these places, worth so much each.
const PRIOR_PLACES: [f64; 2] = [0.0, 24.0];
const PRIOR_WEIGHT: f64 = 0.5;
/// A unit is never taken to cost less than this share of what is believed: a few noisy measurements could make it nothing,
/// and then a crowd's verifications would seem to be free.
const LEAST_SHARE: f64 = 0.8;
/// A residual above so many times the prediction counts as that much: a stall says nothing of the cost.
const OUTLIER: f64 = 3.0;

/// A fixed cost and a cost for each unit, neither negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// What even nothing costs.
    pub fixed: f64,
    /// What each unit adds.
    pub each: f64,
}

impl Cost {
    /// The cost of so many units.
    #[must_use]
    pub fn of(&self, units: f64) -> f64 {
        self.fixed + self.each * units
    }

    /// The cost where everything takes `factor` times as long.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { fixed: factor * self.fixed, each: factor * self.each }
    }
}

/// Weighted least squares of `cost = fixed + each · units` over measurements that fade.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Line {
    weight: f64,
    units: f64,
    cost: f64,
    units_squared: f64,
    units_cost: f64,
}

impl Line {
    /// Takes in that so many units cost so much; `prior` is what is believed without any measurement.
    pub fn observe(&mut self, units: f64, cost: f64, prior: Cost) {
        let cost = cost.min(OUTLIER * self.fit(prior).of(units));
        self.fade(FADING);
        self.add(units, cost, 1.0);
    }

    /// Makes all measurements so far weigh this share of what they did.
    pub fn fade(&mut self, share: f64) {
        for sum in [&mut self.weight, &mut self.units, &mut self.cost, &mut self.units_squared, &mut self.units_cost] {
            *sum *= share;
        }
    }

    /// How many measurements it rests on, faded ones counted in part.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The line, drawn towards `prior` where measurements say little.
    #[must_use]
    pub fn fit(&self, prior: Cost) -> Cost {
        let mut all = *self;
        PRIOR_PLACES.iter().for_each(|place| all.add(*place, prior.of(*place), PRIOR_WEIGHT));
        let Self { weight, units, cost, units_squared, units_cost } = all;
        let spread = weight * units_squared - units * units;
        let each = ((weight * units_cost - units * cost) / spread).max(LEAST_SHARE * prior.each);
        let fixed = (cost - each * units) / weight;
        if fixed >= 0.0 {
            return Cost { fixed, each };
        }
        // Through the origin, since nothing costs less than nothing.
        Cost { fixed: 0.0, each: units_cost / units_squared }
    }

    fn add(&mut self, units: f64, cost: f64, weight: f64) {
        self.weight += weight;
        self.units += weight * units;
        self.cost += weight * cost;
        self.units_squared += weight * units * units;
        self.units_cost += weight * units * cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: Cost = Cost { fixed: 5.0, each: 0.1 };

    #[test]
    fn the_prior_holds_until_something_was_measured() {
        let fit = Line::default().fit(PRIOR);
        assert!((fit.fixed - 5.0).abs() < 1e-9 && (fit.each - 0.1).abs() < 1e-9);
    }

    #[test]
    fn measurements_overrule_it() {
        let mut line = Line::default();
        for round in 0..60 {
            let units = f64::from(round % 12 + 8);
            line.observe(units, 20.0 + 0.9 * units, PRIOR);
        }
        let fit = line.fit(PRIOR);
        assert!((fit.fixed - 20.0).abs() < 1.5 && (fit.each - 0.9).abs() < 0.15, "{fit:?}");
    }

    #[test]
    fn what_has_faded_is_believed_less() {
        let mut line = Line::default();
        (0..40).for_each(|_| line.observe(8.0, 80.0, PRIOR));
        let before = line.fit(PRIOR).of(8.0);
        line.fade(0.001);
        assert!(before > 70.0 && line.fit(PRIOR).of(8.0) < 10.0);
    }

    #[test]
    fn neither_part_is_ever_negative() {
        let mut line = Line::default();
        (0..40).for_each(|units| line.observe(f64::from(units), f64::from(units) * 2.0 - 5.0, PRIOR));
        let fit = line.fit(PRIOR);
        assert!(fit.fixed >= 0.0 && fit.each > 0.0);
        let mut line = Line::default();
        (0..40).for_each(|units| line.observe(f64::from(units), 50.0 - f64::from(units), PRIOR));
        assert_eq!(line.fit(PRIOR).each, LEAST_SHARE * PRIOR.each);
    }
}
