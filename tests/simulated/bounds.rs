//! What no speculation can beat under a cost model: the shortest time of a rollout whose every draft is accepted.
//!
//! Notation, after [`CostModel`] and [`DraftCost`]: a request takes r, a step b, a sampling sequence s, any other token p;
//! the draft model takes d a token. A rollout of n tokens after c tokens of prompt begins with the prefill, which brings
//! its first token:
//!
//! F = r + b + s + (c − 1) p
//!
//! Of a context of m tokens the server has computed all but the last. So a verification of k drafts after it finds the
//! full blocks of B tokens among those m − 1, and computes what follows them, the last as the sampling sequence:
//!
//! V(m, k) = r + b + s + ((m − 1) mod B + k) p
//!
//! **In turn**: draft k, verify k, get k + 1 tokens. With at most K drafts a round,
//!
//! T = F + min over k₁ + 1 + k₂ + 1 + … = n − 1, kᵢ ≤ K, of Σ (d kᵢ + V(mᵢ, kᵢ)).
//!
//! **Overlapped**: the draft model goes on while a verification is in flight, and its guess of the bonus token is right.
//! Then the verification of one round hides behind the drafts of the next, or they behind it. The first round's drafts
//! hide behind the prefill but for what the prefill's own token leaves to be known, which an oracle guesses as well:
//!
//! T = F + min of Σ max(V(mᵢ, kᵢ), d (kᵢ₊₁ + 1)), with no drafts to make during the last.
//!
//! Both minima are found exactly, by dynamic programming over what is left.

use std::time::Duration;

use super::support::fake_vllm::{CostModel, DraftCost, StepLoad};

/// A rollout, and what speculation on it costs.
#[derive(Debug, Clone, Copy)]
pub struct Rollout {
    pub model: CostModel,
    pub draft: DraftCost,
    /// Tokens of its prompt, none of them cached.
    pub prompt: usize,
    /// Tokens to come.
    pub tokens: usize,
    /// Tokens of a cache block.
    pub block: usize,
    /// Drafts in a round at most.
    pub most: usize,
}

impl Rollout {
    fn prefill(&self) -> Duration {
        self.model.alone(self.prompt, 1)
    }

    /// V of this file's first lines.
    fn verification(&self, context: usize, drafts: usize) -> Duration {
        let prefilled = (context - 1) % self.block + drafts;
        self.model.request + self.model.step(StepLoad { sampled: 1, prefilled })
    }

    fn drafting(&self, tokens: usize) -> Duration {
        self.draft.token * u32::try_from(tokens).unwrap()
    }

    /// The context of a round that leaves `left` tokens to come.
    fn context(&self, left: usize) -> usize {
        self.prompt + self.tokens - left
    }

    /// Plain decoding.
    pub fn decoded(&self) -> Duration {
        self.model.alone(self.prompt, self.tokens)
    }

    /// The shortest time where drafting and verification take turns.
    pub fn in_turn(&self) -> Duration {
        let mut best = vec![Duration::ZERO; self.tokens];
        for left in 1..self.tokens {
            let rounds = (0..=self.most.min(left - 1)).map(|drafts| {
                self.drafting(drafts) + self.verification(self.context(left), drafts) + best[left - 1 - drafts]
            });
            best[left] = rounds.min().unwrap();
        }
        self.prefill() + best[self.tokens - 1]
    }

    /// The shortest time where the draft model works during verifications.
    pub fn overlapped(&self) -> Duration {
        // By the tokens left and the drafts already made for the round that comes.
        let mut best = vec![vec![Duration::ZERO; self.most + 1]; self.tokens];
        for left in 1..self.tokens {
            for drafts in 0..=self.most.min(left - 1) {
                let verified = self.verification(self.context(left), drafts);
                let after = left - 1 - drafts;
                let next = (0..=self.most.min(after.saturating_sub(1)))
                    .map(|next| verified.max(self.drafting(next + 1)) + best[after][next]);
                best[left][drafts] = if after == 0 { verified } else { next.min().unwrap() };
            }
        }
        let first = (0..=self.most.min(self.tokens.saturating_sub(2)))
            .map(|drafts| self.prefill().max(self.drafting(drafts + 1)) + best[self.tokens - 1][drafts]);
        if self.tokens == 1 { self.prefill() } else { first.min().unwrap() }
    }
}

fn rollout(prompt: usize, tokens: usize, most: usize) -> Rollout {
    let (model, draft) = (CostModel::h100_8b(), DraftCost::h100_8b());
    Rollout { model, draft, prompt, tokens, block: 16, most }
}

#[test]
fn the_bounds_are_those_of_rounds_that_can_be_counted_by_hand() {
    // Two tokens: the prefill and a request for one more.
    let two = rollout(16, 2, 8);
    let prefill = 1_200 + 6_230 + 15 * 40;
    assert_eq!(two.in_turn().as_micros(), prefill + 1_200 + 6_230);
    // Six tokens: the prefill, and a round of four drafts after seventeen tokens.
    let six = rollout(16, 6, 8);
    let verified = 1_200 + 6_230 + 4 * 40;
    assert_eq!(six.in_turn().as_micros(), prefill + 4 * 600 + verified);
    assert_eq!(six.overlapped().as_micros(), prefill + verified);
}

#[test]
fn more_freedom_is_never_slower() {
    for most in 1..12 {
        let (less, more) = (rollout(1024, 200, most), rollout(1024, 200, most + 1));
        assert!(more.in_turn() <= less.in_turn() && more.overlapped() <= less.overlapped());
        assert!(less.overlapped() <= less.in_turn());
    }
    // Behind verifications drafts cost nothing as long as they are the shorter: then it is a round per V.
    let nothing = DraftCost { token: Duration::ZERO, extra_row: Duration::ZERO, read: Duration::ZERO };
    let free = Rollout { draft: nothing, ..rollout(64, 91, 8) };
    assert_eq!(free.overlapped(), free.in_turn());
}
