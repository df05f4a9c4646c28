//! How likely drafts are to be accepted: by drafter, by how sure it was, by position, by rollout.
//!
//! A drafter's tables hold the shares that were accepted among the drafts that were judged at all. A rollout, and the
//! group it belongs to, differ from the mean by a hazard: how many rejections came for each that the tables foresaw.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::draft::{CONFIDENCE_BINS, confidence_bin};

/// Positions told apart; later ones are as the last.
const POSITIONS: usize = 24;
/// What a cell remembers, in drafts.
const MEMORY: f64 = 300.0;
/// The belief before any draft was judged, worth so many drafts.
const PRIOR_WEIGHT: f64 = 8.0;
const PRIOR_ACCEPTANCE: f64 = 0.75;
/// A position or a confidence is believed to be like all of them, as if that came of so many drafts.
const CELL_PRIOR_WEIGHT: f64 = 16.0;
/// A position that is believed to be like another drafter's is so as if that came of so many drafts.
const LIKENESS_WEIGHT: f64 = 4.0;
/// What a rollout's own rejections weigh against its group's, and a group's against the rest, in foreseen rejections.
const HAZARD_PRIOR: f64 = 4.0;
/// No draft is ever taken for certain.
const MOST: f64 = 0.999;

/// The share of drafts that were accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Share {
    accepted: f64,
    judged: f64,
}

impl Share {
    fn observe(&mut self, accepted: bool) {
        if self.judged >= MEMORY {
            let keep = 1.0 - 1.0 / MEMORY;
            self.accepted *= keep;
            self.judged *= keep;
        }
        self.judged += 1.0;
        self.accepted += f64::from(u8::from(accepted));
    }

    /// The share, where `prior` is believed as if it came of so many drafts.
    fn mean(&self, prior: f64, weight: f64) -> f64 {
        (self.accepted + weight * prior) / (self.judged + weight)
    }
}

/// One drafter's record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// What is believed before any draft was judged, if it is not the usual.
    prior: Option<f64>,
    overall: Share,
    by_confidence: [Share; CONFIDENCE_BINS],
    by_position: [Share; POSITIONS],
}

/// A draft that was judged: by what it was forecast and what became of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    /// Its place in the proposal, from 0.
    pub position: usize,
    /// How sure the drafter was, if it said.
    pub confidence: Option<f32>,
    /// Whether it was kept.
    pub accepted: bool,
}

impl Record {
    /// Believes that drafts are accepted with this chance until they are judged.
    pub fn believe(&mut self, acceptance: f64) {
        self.prior = Some(acceptance);
    }

    /// Takes in a judged draft.
    pub fn observe(&mut self, judged: Judged) {
        self.overall.observe(judged.accepted);
        self.by_position[judged.position.min(POSITIONS - 1)].observe(judged.accepted);
        if let Some(confidence) = judged.confidence {
            self.by_confidence[confidence_bin(confidence)].observe(judged.accepted);
        }
    }

    /// The chance of a draft of which nothing is known.
    #[must_use]
    pub fn overall(&self) -> f64 {
        self.overall.mean(self.prior.unwrap_or(PRIOR_ACCEPTANCE), PRIOR_WEIGHT).min(MOST)
    }

    /// Whether the drafter says how sure it is.
    #[must_use]
    pub fn knows_confidence(&self) -> bool {
        self.by_confidence.iter().any(|share| share.judged > 0.0)
    }

    /// How many drafts were judged, faded ones counted in part.
    #[must_use]
    pub fn judged(&self) -> f64 {
        self.overall.judged
    }

    /// The chance that the draft at `position` is kept, given that it is reached.
    #[must_use]
    pub fn at_position(&self, position: usize) -> f64 {
        self.by_position[position.min(POSITIONS - 1)].mean(self.overall(), CELL_PRIOR_WEIGHT).min(MOST)
    }

    /// The same of a drafter whose drafts are believed to be like those of another there.
    #[must_use]
    pub fn at_position_like(&self, position: usize, other: &Self) -> f64 {
        let own = &self.by_position[position.min(POSITIONS - 1)];
        own.mean(other.at_position(position), LIKENESS_WEIGHT).min(MOST)
    }

    /// The same by how sure the drafter was.
    #[must_use]
    pub fn by_confidence(&self, bin: usize) -> f64 {
        self.by_confidence[bin].mean(self.overall(), CELL_PRIOR_WEIGHT).min(MOST)
    }

    /// The same for a draft at `position` of which the drafter was so sure.
    #[must_use]
    pub fn forecast(&self, confidence: Option<f32>, position: usize) -> f64 {
        match confidence {
            Some(confidence) => self.by_confidence(confidence_bin(confidence)),
            None => self.at_position(position),
        }
    }
}

/// `acceptance` for a rollout that sees `hazard` times the usual rejections.
#[must_use]
pub fn under(acceptance: f64, hazard: f64) -> f64 {
    (1.0 - (1.0 - acceptance) * hazard).clamp(0.0, MOST)
}

/// Rejections seen and foreseen in one rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Hazard {
    rejected: f64,
    foreseen: f64,
}

impl Hazard {
    /// Takes in a judged draft whose chance was `acceptance`.
    pub fn observe(&mut self, acceptance: f64, accepted: bool) {
        /// A rollout's text changes as it goes on: the last hundred drafts or so count.
        const FADING: f64 = 0.99;
        self.rejected = FADING * self.rejected + f64::from(u8::from(!accepted));
        self.foreseen = FADING * self.foreseen + (1.0 - acceptance);
    }

    /// Rejections for each that was foreseen, where `prior` is its group's.
    #[must_use]
    pub fn ratio(&self, prior: f64) -> f64 {
        (self.rejected + HAZARD_PRIOR * prior) / (self.foreseen + HAZARD_PRIOR)
    }
}

/// The same of all rollouts of one prompt, which they add to as they go.
#[derive(Debug, Default)]
pub struct GroupHazard {
    rejected: AtomicU64,
    foreseen: AtomicU64,
}

/// Counts are kept in thousandths.
const UNIT: f64 = 1000.0;

impl GroupHazard {
    /// Takes in a judged draft whose chance was `acceptance`.
    pub fn observe(&self, acceptance: f64, accepted: bool) {
        let units = |value: f64| (value * UNIT) as u64;
        self.rejected.fetch_add(units(f64::from(u8::from(!accepted))), Ordering::Relaxed);
        self.foreseen.fetch_add(units(1.0 - acceptance), Ordering::Relaxed);
    }

    /// Rejections for each that was foreseen.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let [rejected, foreseen] =
            [&self.rejected, &self.foreseen].map(|count| count.load(Ordering::Relaxed) as f64 / UNIT);
        (rejected + HAZARD_PRIOR) / (foreseen + HAZARD_PRIOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(position: usize, confidence: Option<f32>, accepted: bool) -> Judged {
        Judged { position, confidence, accepted }
    }

    #[test]
    fn sure_drafts_and_early_ones_are_told_from_others() {
        let mut record = Record::default();
        for index in 0..600 {
            record.observe(judged(0, Some(0.99), index % 20 != 0));
            record.observe(judged(3, Some(0.3), index % 3 == 0));
        }
        let [sure, unsure] = [0.99, 0.3].map(|confidence| record.by_confidence(confidence_bin(confidence)));
        assert!((sure - 0.95).abs() < 0.02 && (unsure - 1.0 / 3.0).abs() < 0.05, "{sure} {unsure}");
        assert!((record.at_position(0) - 0.95).abs() < 0.02);
        let between = record.by_confidence(confidence_bin(0.6));
        assert!((between - 0.64).abs() < 0.1, "a bin without drafts is as the mean: {between}");
    }

    #[test]
    fn a_rollout_that_is_rejected_more_than_foreseen_has_a_higher_hazard_than_its_group() {
        let (mut hazard, group) = (Hazard::default(), GroupHazard::default());
        assert_eq!((hazard.ratio(1.0), group.ratio()), (1.0, 1.0));
        for index in 0..100 {
            hazard.observe(0.9, index % 2 == 0);
            group.observe(0.9, index % 10 != 0);
        }
        assert!(hazard.ratio(group.ratio()) > 2.5);
        assert!((group.ratio() - 1.0).abs() < 0.05);
        assert!(under(0.9, hazard.ratio(1.0)) < 0.75);
    }

    #[test]
    fn nothing_is_certain() {
        let mut record = Record::default();
        (0..1000).for_each(|_| record.observe(judged(0, Some(1.0), true)));
        assert!(record.at_position(0) < 1.0 && under(1.0, 0.0) < 1.0);
        assert_eq!(under(0.5, 10.0), 0.0);
    }
}
