//! What may be lost to finding out whether a way that looks slower still is.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Tokens that may be lost, for each token that was committed.
const SHARE: f64 = 0.005;
/// After so many trials in a row that changed nothing, the share shrinks with each further one.
const PATIENCE: f64 = 4.0;
/// It does not shrink below this part, for drafts, servers and policies change.
const LEAST: f64 = 0.1;
/// What may be lost before any token was committed, since nothing is known then; more than this is not saved up either.
const MOST: f64 = 24.0;
const MICRO: f64 = 1e6;

/// A number of tokens, in millionths.
#[derive(Debug, Default)]
struct Tokens(AtomicU64);

impl Tokens {
    fn left(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / MICRO
    }

    fn spend(&self, tokens: f64) -> bool {
        let less = |left: u64| left.checked_sub((tokens * MICRO) as u64);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn earn(&self, tokens: f64, most: f64) {
        let more = |left: u64| Some((left + (tokens * MICRO) as u64).min((most * MICRO) as u64));
        // It always changes something.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

/// Tokens to lose, shared by all rollouts. What a trial costs is earned by tokens already won, so that decoding where
/// nothing else pays stays as fast as without trials; the more trials have changed nothing, the slower.
#[derive(Debug)]
pub struct Allowance {
    tokens: Tokens,
    /// Trials since speculation last was the fastest way, of few rollouts and in a crowd.
    futile: [AtomicUsize; 2],
}

impl Default for Allowance {
    fn default() -> Self {
        Self { tokens: Tokens(AtomicU64::new((MOST * MICRO) as u64)), futile: Default::default() }
    }
}

impl Allowance {
    /// Tokens that may be lost.
    #[must_use]
    pub fn left(&self) -> f64 {
        self.tokens.left()
    }

    /// Takes so many of them for a trial, if there are as many.
    pub fn spend(&self, tokens: f64, crowded: bool) -> bool {
        let spent = self.tokens.spend(tokens);
        if spent {
            self.futile(crowded).fetch_add(1, Ordering::Relaxed);
        }
        spent
    }

    /// Notes that speculation is the fastest way: whatever is tried now is tried where things may turn.
    pub fn pays(&self, crowded: bool) {
        self.futile(crowded).store(0, Ordering::Relaxed);
    }

    /// Notes committed tokens.
    pub fn earn(&self, tokens: usize, crowded: bool) {
        let futile = self.futile(crowded).load(Ordering::Relaxed) as f64;
        let share = SHARE * (PATIENCE / futile.max(PATIENCE)).max(LEAST);
        self.tokens.earn(tokens as f64 * share, MOST);
    }

    fn futile(&self, crowded: bool) -> &AtomicUsize {
        &self.futile[usize::from(crowded)]
    }
}

/// Tokens that crowds may lose together, all of them at once, for each token that they committed.
const JOINT_SHARE: f64 = 0.01;
/// More than this is not saved up.
const MOST_JOINT: f64 = 20_000.0;
/// Once it was tried, there must be so many times as much to lose as another trial may cost.
const JOINT_PATIENCE: f64 = 8.0;

/// Tokens for all of a crowd to lose at once: none before any was won, for that would be no small part of a step.
#[derive(Debug, Default)]
pub struct JointAllowance {
    tokens: Tokens,
    /// Whether there was a trial.
    was_tried: AtomicBool,
}

impl JointAllowance {
    /// Tokens that the next trial may lose.
    #[must_use]
    pub fn left(&self) -> f64 {
        let patience = if self.was_tried.load(Ordering::Relaxed) { JOINT_PATIENCE } else { 1.0 };
        self.tokens.left() / patience
    }

    /// Notes that a trial is over.
    pub fn note_trial(&self) {
        self.was_tried.store(true, Ordering::Relaxed);
    }

    /// Takes so many of them for one rollout's part in a trial, if there are as many.
    pub fn spend(&self, tokens: f64) -> bool {
        self.tokens.spend(tokens)
    }

    /// Notes committed tokens.
    pub fn earn(&self, tokens: usize) {
        self.tokens.earn(tokens as f64 * JOINT_SHARE, MOST_JOINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trials of `stake` tokens each while `tokens` are committed one by one.
    fn trials(allowance: &Allowance, tokens: usize, stake: f64, crowded: bool) -> usize {
        let tried = (0..tokens).filter(|_| {
            allowance.earn(1, crowded);
            allowance.spend(stake, crowded)
        });
        tried.count()
    }

    #[test]
    fn what_is_lost_is_a_small_share_of_what_was_won() {
        let allowance = Allowance::default();
        let lost = 6.0 * trials(&allowance, 10_000, 6.0, false) as f64;
        assert!((MOST..=MOST + 10_000.0 * SHARE).contains(&lost), "{lost}");
    }

    #[test]
    fn trials_that_change_nothing_become_rare_and_never_cease() {
        let allowance = Allowance::default();
        trials(&allowance, 100_000, 5.0, true);
        let rare = trials(&allowance, 100_000, 5.0, true);
        assert!(rare.abs_diff(10) <= 1, "{rare}");
        allowance.pays(true);
        assert!(trials(&allowance, 10_000, 5.0, true) >= 7, "where things may turn it pays to look");
    }

    #[test]
    fn a_crowd_says_nothing_of_a_rollout_alone() {
        let allowance = Allowance::default();
        trials(&allowance, 100_000, 5.0, true);
        assert!(trials(&allowance, 10_000, 5.0, false) >= 7);
    }

    #[test]
    fn a_crowd_has_nothing_to_lose_before_it_won_anything() {
        let joint = JointAllowance::default();
        assert!(!joint.spend(1.0));
        joint.earn(1000);
        assert!(joint.spend(1000.0 * JOINT_SHARE) && !joint.spend(1.0));
    }

    #[test]
    fn a_second_joint_trial_comes_much_later() {
        let joint = JointAllowance::default();
        joint.earn(10_000);
        let first = joint.left();
        joint.note_trial();
        assert_eq!(joint.left(), first / JOINT_PATIENCE);
    }

    #[test]
    fn what_is_not_there_is_not_spent() {
        let allowance = Allowance::default();
        assert!(!allowance.spend(MOST + 1.0, false));
        assert_eq!(allowance.left(), MOST);
    }
}
