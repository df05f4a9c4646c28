//! What a drafter hands over: the drafted tokens and the distribution each was drawn from.

use super::{Row, Sampling, target};

/// A token id of the target's vocabulary.
pub type TokenId = u32;

/// The distribution a drafted token was drawn from, called q in the literature.
#[derive(Debug, Clone, PartialEq)]
pub enum DraftDistribution {
    /// The drafter had no choice: q puts all its mass on the drafted token.
    PointMass,
    /// Distinct ids with probabilities that sum to 1; every id that could have been drawn is listed,
    /// the drafted one included.
    Listed(Vec<(TokenId, f64)>),
    /// Distinct ids with their probabilities, which sum to 1 at most; of the rest nothing is known but its mass. Which
    /// ids these are may depend on what came before, but not on the drafted token, which may be among them or not.
    Partial(Vec<(TokenId, f64)>),
}

impl DraftDistribution {
    /// What is known of the distribution that `row` describes to a sampler of these parameters, from which `token` was
    /// drawn once. `row` holds nothing that depends on `token`. Without knowledge, `token` is a point mass.
    #[must_use]
    pub fn of_row(row: &Row, sampling: &Sampling, token: TokenId) -> Self {
        let Some(known) = target(row, sampling) else { return Self::PointMass };
        let list: Vec<_> = known.listed().collect();
        if sampling.is_raw() {
            return Self::Partial(list);
        }
        // The server's arithmetic may have left in what ours left out.
        if list.iter().any(|(id, probability)| *id == token && *probability > 0.0) {
            Self::Listed(list)
        } else {
            Self::PointMass
        }
    }
}

/// One drafted token.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The token proposed.
    pub token: TokenId,
    /// What it was drawn from, given the context and the drafts before it.
    pub q: DraftDistribution,
    /// How sure the drafter was of this position before it drew, in [0, 1], if it can tell. Acceptance is forecast
    /// from it, and nothing else: it takes no part in accepting.
    pub confidence: Option<f32>,
}

impl Draft {
    /// A token drawn from `q`.
    #[must_use]
    pub fn new(token: TokenId, q: DraftDistribution) -> Self {
        Self { token, q, confidence: None }
    }

    /// A token proposed without any randomness.
    #[must_use]
    pub fn certain(token: TokenId) -> Self {
        Self::new(token, DraftDistribution::PointMass)
    }

    /// The same, proposed with `confidence`.
    #[must_use]
    pub fn with_confidence(self, confidence: f32) -> Self {
        Self { confidence: Some(confidence), ..self }
    }

    /// q of `token`: the probability with which the drafter would have proposed it here. Of a partial distribution, only
    /// what is listed counts; [`Classes`](super::Classes) knows what to make of the rest.
    #[must_use]
    pub fn probability_of(&self, token: TokenId) -> f64 {
        match &self.q {
            DraftDistribution::PointMass => f64::from(u8::from(token == self.token)),
            DraftDistribution::Listed(list) | DraftDistribution::Partial(list) => {
                list.iter().find(|(id, _)| *id == token).map_or(0.0, |(_, probability)| *probability)
            }
        }
    }
}

/// Tokens that might come next, in order. Empty when the drafter has nothing to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proposal {
    /// d1..dk, each drawn given the context and the drafts before it.
    pub drafts: Vec<Draft>,
}

impl Proposal {
    /// Whether every draft is a point mass, so that no randomness went into the proposal.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.drafts.iter().all(|draft| draft.q == DraftDistribution::PointMass)
    }

    /// The drafted ids alone.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.drafts.iter().map(|draft| draft.token)
    }
}
