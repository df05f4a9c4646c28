//! What a round of speculation is expected to take and to bring: arithmetic on measured costs, and nothing else.
//!
//! The server works in steps. A step takes `base` and, for each request that it serves, what that brings: a decoding
//! request a row, a verification a row and its new tokens. A verification that arrives while the server is busy joins
//! the step after the present one, so it waits for half a step of the others' on average; all verifications that arrive
//! meanwhile share the step, and make it longer for each other. So a round's length is asked for where everybody does the
//! same, which is what decides whether speculation pays under load.

use super::line::Cost;

/// What a round is made of, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundCost {
    /// A step of the server in which nothing is asked of it but the decoding of others.
    pub base: f64,
    /// What a request adds to the step that serves it.
    pub row: f64,
    /// Fixed: the request's own way to the server and back. Each: computing a new token.
    pub verify: Cost,
    /// A proposal by its length.
    pub draft: Cost,
    /// What a round takes beside drafting and verification: draws from the tail, above all.
    pub extra: f64,
}

/// Who else is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Company {
    /// Rollouts that speculate, this one included.
    pub speculating: f64,
    /// Requests that decode.
    pub decoding: f64,
}

impl Company {
    /// Requests that the server works on.
    #[must_use]
    pub fn requests(&self) -> f64 {
        self.speculating + self.decoding
    }

    /// Of the two, the one that keeps the server busier.
    #[must_use]
    pub fn busier(self, other: Self) -> Self {
        if other.requests() > self.requests() { other } else { self }
    }

    /// Half a step on average where the server is at work already when a request comes, none where it is idle.
    fn wait(&self) -> f64 {
        if self.requests() > 1.5 { 0.5 } else { 0.0 }
    }

    /// The share of the verifications that are others'.
    fn share_of_others(&self) -> f64 {
        (self.speculating - 1.0).max(0.0) / self.speculating.max(1.0)
    }
}

impl RoundCost {
    /// Seconds from the sending of a verification of so many new tokens to its reply, where the rest of the round takes
    /// `elsewhere` seconds.
    #[must_use]
    pub fn verification(&self, new_tokens: f64, elsewhere: f64, company: Company) -> f64 {
        let own = self.row + self.verify.each * new_tokens;
        let mut sharing = 1.0;
        let mut verification = 0.0;
        // The step's length grows with the number of verifications in it, and that with the step's length: the iteration
        // climbs to where both agree, quickly, for the map is increasing and concave.
        for _ in 0..12 {
            let step = self.base + sharing * own;
            let waiting = company.wait() * (self.base + company.share_of_others() * sharing * own);
            verification = self.verify.fixed + waiting + step;
            let next = (company.speculating * step / (elsewhere + verification)).max(1.0);
            if (next - sharing).abs() < 1e-3 * sharing {
                break;
            }
            sharing = next;
        }
        verification
    }

    /// Seconds of a round with so many drafts and new tokens.
    #[must_use]
    pub fn round(&self, drafts: f64, new_tokens: f64, company: Company) -> f64 {
        let elsewhere = self.draft.of(drafts) + self.extra;
        elsewhere + self.verification(new_tokens, elsewhere, company)
    }
}

/// The best length of a proposal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// Drafts.
    pub length: usize,
    /// Tokens that the round is expected to bring, the one after the drafts included.
    pub tokens: f64,
    /// Seconds that the round is expected to take.
    pub seconds: f64,
    /// A further draft is worth its cost while the chance that it is reached and kept is at least this: what a draft
    /// costs in seconds, times the tokens that a second brings (the stopping rule for the best ratio of two sums,
    /// Dinkelbach 1967).
    pub least: f64,
}

impl Best {
    /// Tokens a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.tokens / self.seconds
    }
}

/// The length, up to that of `acceptance`, at which a round brings the most tokens a second. `acceptance` holds the
/// chance of each draft to be kept if it is reached, `seconds` gives the length of a round by its drafts and the chance that
/// all of them are kept.
#[must_use]
pub fn best_length(acceptance: impl IntoIterator<Item = f64>, seconds: impl Fn(usize, f64) -> f64) -> Option<Best> {
    /// A longer proposal may pay where a slightly longer one does not, for instance past a bad patch.
    const LOOK_AHEAD: usize = 8;
    let mut best: Option<Best> = None;
    let (mut reached, mut tokens) = (1.0, 1.0);
    let mut all = 1.0;
    for (index, chance) in acceptance.into_iter().enumerate() {
        let length = index + 1;
        reached *= chance;
        tokens += reached;
        let this = Best { length, tokens, seconds: seconds(length, reached), least: 0.0 };
        if best.is_none_or(|best| this.rate() > best.rate()) {
            (best, all) = (Some(this), reached);
        } else if best.is_some_and(|best| length > best.length + LOOK_AHEAD) {
            break;
        }
    }
    best.map(|best| Best { least: best.rate() * (seconds(best.length + 1, all) - best.seconds).max(0.0), ..best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An 8B model on a fast GPU, in milliseconds.
    const GPU: RoundCost = RoundCost {
        base: 6.2,
        row: 0.03,
        verify: Cost { fixed: 1.2, each: 0.04 },
        draft: Cost { fixed: 0.0, each: 0.6 },
        extra: 0.0,
    };
    const ALONE: Company = Company { speculating: 1.0, decoding: 0.0 };

    fn ratio(acceptance: f64, rollouts: f64) -> f64 {
        let company = Company { speculating: rollouts, decoding: 0.0 };
        let seconds = |drafts: usize, _: f64| GPU.round(drafts as f64, drafts as f64 + 8.0, company);
        best_length([acceptance; 16], seconds).unwrap().rate() * (GPU.base + GPU.row * rollouts)
    }

    #[test]
    fn alone_a_round_is_a_step_and_a_request() {
        let round = GPU.round(4.0, 12.0, ALONE);
        assert!((round - (4.0 * 0.6 + 1.2 + 6.2 + 0.03 + 12.0 * 0.04)).abs() < 1e-9);
    }

    #[test]
    fn speculation_pays_alone_and_does_not_in_a_crowd() {
        assert!(ratio(0.85, 1.0) > 2.3);
        assert!(ratio(0.85, 8.0) > 1.5);
        assert!(ratio(0.85, 64.0) < 1.0);
        assert!(ratio(0.5, 1.0) > 1.15);
        assert!(ratio(0.5, 32.0) < 1.0);
    }

    #[test]
    fn the_best_length_is_where_one_more_draft_costs_more_than_it_brings() {
        let seconds = |drafts: usize, _: f64| 10.0 + drafts as f64;
        let acceptance = 0.9_f64;
        let best = best_length([acceptance; 64], seconds).unwrap();
        let reached = |drafts: usize| acceptance.powi(drafts as i32);
        assert!(reached(best.length) >= best.least && reached(best.length + 1) < best.least, "{best:?}");
        assert_eq!(best_length([], seconds), None);
    }

    #[test]
    fn a_bad_patch_is_looked_past() {
        let free = |drafts: usize, _: f64| 10.0 + 0.01 * drafts as f64;
        let acceptance = [0.9, 0.9, 0.05, 0.99, 0.99, 0.99, 0.99];
        assert_eq!(best_length(acceptance, free).unwrap().length, 7);
    }

    #[test]
    fn company_makes_rounds_longer_but_never_endless() {
        let mut last = 0.0;
        for rollouts in [1.0, 2.0, 8.0, 32.0, 256.0, 4096.0] {
            let round = GPU.round(4.0, 12.0, Company { speculating: rollouts, decoding: 0.0 });
            assert!(round > last && round.is_finite());
            last = round;
        }
    }
}
