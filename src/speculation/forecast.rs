//! How far to draft: acceptance forecast from a drafter's confidence, and when to stop by it.

/// Into how many bins confidence is sorted.
pub const CONFIDENCE_BINS: usize = 16;

/// Log-odds below which everything is one bin: 0.12.
const FIRST: f32 = -2.0;
/// Log-odds from one bin to the next.
const STEP: f32 = 0.6;

/// The bin of a confidence: equally wide in log-odds, so that 0.9, 0.97, 0.99 and 0.998, which differ much in how
/// often they are wrong, are told apart as well as 0.2 and 0.3. The first bin takes everything below 0.12 (and NaN),
/// the last everything from 0.9983.
#[must_use]
pub fn confidence_bin(confidence: f32) -> usize {
    let log_odds = (confidence / (1.0 - confidence)).ln();
    // Casting clamps what is below 0, and NaN becomes 0.
    (((log_odds - FIRST) / STEP + 1.0) as usize).min(CONFIDENCE_BINS - 1)
}

/// When to stop drafting: after the draft with which it is no longer likely enough that all so far are accepted.
///
/// The rule is asked after a draft was drawn, and decides whether the next one is drawn. A draft that was drawn is
/// never left out because of what it is: were it, those that remain would no longer be distributed as their q says,
/// and acceptance would not be exact. For the same reason a forecast may use whatever came before a position, but
/// whether the position belongs to the proposal may not depend on the token drawn at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// How likely a draft is accepted, given that those before it are, by [`confidence_bin`].
    pub acceptance: [f32; CONFIDENCE_BINS],
    /// Drafting goes on while the product of the forecasts so far is at least this.
    pub least: f32,
}

impl StopRule {
    /// Draft as much as was asked for.
    #[must_use]
    pub const fn never() -> Self {
        Self { acceptance: [1.0; CONFIDENCE_BINS], least: 0.0 }
    }

    /// Takes the draft just drawn into `survival`, the forecast that all so far are accepted, which starts as 1, and
    /// says whether another is worth drawing. A draft without a confidence leaves the forecast as it is.
    #[must_use]
    pub fn goes_on(&self, survival: &mut f32, confidence: Option<f32>) -> bool {
        *survival *= confidence.map_or(1.0, |confidence| self.acceptance[confidence_bin(confidence)]);
        *survival >= self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_confidence_has_a_bin_and_more_confidence_never_a_lower_one() {
        let bins: Vec<usize> = (0..=10_000).map(|step| confidence_bin(step as f32 / 10_000.0)).collect();
        assert!(bins.is_sorted());
        assert_eq!((bins[0], bins[10_000]), (0, CONFIDENCE_BINS - 1));
        assert!((0..CONFIDENCE_BINS).all(|bin| bins.contains(&bin)));
        assert_eq!((confidence_bin(-1.0), confidence_bin(f32::NAN), confidence_bin(2.0)), (0, 0, 0));
    }

    #[test]
    fn the_top_is_told_apart() {
        let bins = [0.5, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999].map(confidence_bin);
        assert!(bins.windows(2).all(|pair| pair[0] < pair[1]), "{bins:?}");
    }

    #[test]
    fn drafting_stops_after_the_draft_with_which_the_product_falls_below_the_least() {
        let mut rule = StopRule { least: 0.3, ..StopRule::never() };
        rule.acceptance = std::array::from_fn(|bin| bin as f32 / 16.0);
        let confidences = [0.999, 0.9, 0.9, 0.9, 0.9];
        let mut survival = 1.0;
        let stopped = confidences.iter().position(|confidence| !rule.goes_on(&mut survival, Some(*confidence)));
        // 15/16 · (7/16)² is the first product below 0.3.
        assert_eq!((stopped, survival), (Some(2), 15.0 / 16.0 * (7.0 / 16.0) * (7.0 / 16.0)));
        assert!(StopRule::never().goes_on(&mut 0.0, Some(0.0)));
        assert!(rule.goes_on(&mut 0.3, None));
    }
}
