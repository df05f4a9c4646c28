//! Which drafts are kept and what comes after them.
//!
//! The token rule is that of Leviathan et al. (arXiv 2211.17192) and Chen et al. (arXiv 2302.01318): a draft x drawn
//! from q is kept with probability min(1, p(x)/q(x)); otherwise the position's token is drawn from the residual
//! r(y) ∝ max(0, p(y) − q(y)). The tail of p, which a row does not list, is drawn from by the server itself.
//! Where only a part of q is known, the class rule takes the token rule's place ([`Classes`]).
//! The match rule, for a p that nobody knows: the server drew y there itself, and y is the token; the draft is kept
//! if it is y.

use std::sync::Arc;

use rand::{Rng, RngCore};

use super::target::raw;
use super::{Classes, Draft, DraftDistribution, Known, Observation, Row, Sampling, Scored, TokenId, target};

/// The three numbers that make speculative sampling lossless. A trait, so that a test can plant a wrong one and see
/// the statistics notice.
pub trait AcceptanceRule: Send + Sync {
    /// The probability of keeping a draft whose target and draft probabilities are `p` and `q`, with q > 0.
    fn acceptance(&self, p: f64, q: f64) -> f64;
    /// The unnormalised probability of a token after a rejection.
    fn residual(&self, p: f64, q: f64) -> f64;
    /// The probability of keeping a token that the server drew from the tail of p, with p > 0.
    fn tail_acceptance(&self, p: f64, q: f64) -> f64;
}

/// The rule under which the result is distributed as p.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lossless;

impl AcceptanceRule for Lossless {
    fn acceptance(&self, p: f64, q: f64) -> f64 {
        (p / q).min(1.0)
    }

    fn residual(&self, p: f64, q: f64) -> f64 {
        (p - q).max(0.0)
    }

    fn tail_acceptance(&self, p: f64, q: f64) -> f64 {
        (1.0 - q / p).max(0.0)
    }
}

/// What a position comes to after its draft was rejected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Residual {
    /// The ids whose p is known, with their unnormalised weights.
    pub listed: Vec<(TokenId, f64)>,
    /// The weight of drawing from the tail.
    pub tail: f64,
}

impl Residual {
    /// The residual of `draft` under `known`.
    #[must_use]
    pub fn new(draft: &Draft, known: &Known<'_>, rule: &dyn AcceptanceRule) -> Self {
        let mut residual = Self::default();
        residual.set(draft, known, rule);
        residual
    }

    /// Becomes the residual of `draft` under `known`, in the memory that it has.
    fn set(&mut self, draft: &Draft, known: &Known<'_>, rule: &dyn AcceptanceRule) {
        self.listed.clear();
        self.listed.extend(known.listed().map(|(id, p)| (id, rule.residual(p, draft.probability_of(id)))));
        self.tail = known.tail();
    }

    /// The token at the quantile `u` of [0, 1); `None` is the tail.
    ///
    /// With no weight anywhere, which only rounding can bring about (p and q agree to the last bit), `fallback` is
    /// the answer.
    #[must_use]
    pub fn at(&self, u: f64, fallback: TokenId) -> Option<TokenId> {
        let total: f64 = self.listed.iter().map(|(_, weight)| weight).sum::<f64>() + self.tail;
        let mut left = u * total;
        let mut last = None;
        for (id, weight) in self.listed.iter().filter(|(_, weight)| *weight > 0.0) {
            if left < *weight {
                return Some(*id);
            }
            left -= weight;
            last = Some(*id);
        }
        if self.tail > 0.0 { None } else { last.or(Some(fallback)) }
    }
}

/// What becomes of a draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is kept, and is to be reported like this.
    Keep(Scored),
    /// It is not kept; this is the position's token.
    Token(Scored),
    /// It is rejected, and the server has to draw from outside of this row's ids, at temperature 1.
    Outside(Row),
    /// Nothing can be said without the server drawing a token at this position with the client's own parameters.
    Sample,
}

/// What to do with a token that the server drew from outside the known ids.
#[derive(Debug, Clone, PartialEq)]
pub enum TailVerdict {
    /// It is the position's token.
    Keep,
    /// Draw again: from the known ids, this one came.
    Token(Scored),
    /// Draw again: from the tail once more.
    Again,
}

/// Judges one position after another. What it allocates for one it keeps for the next.
pub struct Judge {
    sampling: Sampling,
    rule: Arc<dyn AcceptanceRule>,
    residual: Residual,
    classes: Classes,
}

impl Judge {
    /// A judge of drafts for a client that samples like this.
    #[must_use]
    pub fn new(sampling: Sampling, rule: Arc<dyn AcceptanceRule>) -> Self {
        Self { sampling, rule, residual: Residual::default(), classes: Classes::default() }
    }

    /// Judges a draft by what was observed at its position.
    pub fn draft(&mut self, draft: &Draft, observation: Observation, rng: &mut dyn RngCore) -> Verdict {
        let row = match observation {
            Observation::Sampled(scored) if scored.token == draft.token => return Verdict::Keep(scored),
            Observation::Sampled(scored) => return Verdict::Token(scored),
            Observation::Row(row) => row,
        };
        let Some(known) = target(&row, &self.sampling) else { return Verdict::Sample };
        // The row of a draft tells the draft's own log-probability, so both are known here.
        let (Some(p), Some(_)) = (known.probability_of(draft.token), row.logprob(draft.token)) else {
            return Verdict::Sample;
        };
        if let DraftDistribution::Partial(listed) = &draft.q {
            self.classes.set(listed, &row, &self.sampling, &known);
            return match self.classes.acceptance(draft.token, self.rule.as_ref()) {
                Some(acceptance) => self.class(draft.token, row, acceptance, rng),
                // What was drawn with probability 0 was not drawn from this q.
                None => self.draft(&Draft::certain(draft.token), Observation::Row(row), rng),
            };
        }
        let q = draft.probability_of(draft.token);
        if rng.random::<f64>() < self.rule.acceptance(p, q) {
            return row.into_scored(draft.token).map_or_else(Verdict::Outside, Verdict::Keep);
        }
        self.residual.set(draft, &known, self.rule.as_ref());
        match self.residual.at(rng.random(), draft.token) {
            Some(token) => row.into_scored(token).map_or_else(Verdict::Outside, Verdict::Token),
            None => Verdict::Outside(row),
        }
    }

    /// Judges a draft whose class is kept with probability `acceptance`.
    fn class(&mut self, draft: TokenId, row: Row, acceptance: f64, rng: &mut dyn RngCore) -> Verdict {
        let is_kept = rng.random::<f64>() < acceptance;
        let class = if is_kept {
            self.classes.class_of(draft)
        } else {
            self.classes.set_residual(&mut self.residual, self.rule.as_ref());
            self.residual.at(rng.random(), draft)
        };
        match class.or_else(|| self.classes.outside().at(rng.random(), draft)) {
            Some(token) if is_kept && token == draft => {
                row.into_scored(token).map_or_else(Verdict::Outside, Verdict::Keep)
            }
            Some(token) => row.into_scored(token).map_or_else(Verdict::Outside, Verdict::Token),
            None => Verdict::Outside(row),
        }
    }

    /// Judges `drawn`, which the server drew from the tail of the distribution that `row` describes.
    ///
    /// A token that is not kept is learnt: the next draw leaves it out, so that a drafter whose tail is almost the
    /// target's, which makes most draws come to nothing, costs no more draws than it lists ids. Each draw, with whatever
    /// is known by then, gives every token a chance in proportion to its residual, so this changes nothing in what comes
    /// out.
    ///
    /// The class rule needs nothing of the tail but a token of it.
    ///
    /// The tail is reached only at temperature 1 without truncation, where p is the exponential of the log-probability.
    pub fn tail(&mut self, draft: &Draft, row: &mut Row, drawn: &Scored, rng: &mut dyn RngCore) -> TailVerdict {
        let in_tail = row.logprob(drawn.token).is_none();
        if matches!(draft.q, DraftDistribution::Partial(_)) {
            return if in_tail { TailVerdict::Keep } else { TailVerdict::Again };
        }
        let acceptance = self.rule.tail_acceptance(drawn.logprob.exp(), draft.probability_of(drawn.token));
        if in_tail && rng.random::<f64>() < acceptance {
            return TailVerdict::Keep;
        }
        row.learn(drawn);
        self.residual.set(draft, &raw(row), self.rule.as_ref());
        match self.residual.at(rng.random(), draft.token) {
            Some(token) => row.scored(token).map_or(TailVerdict::Again, TailVerdict::Token),
            None => TailVerdict::Again,
        }
    }
}
