//! Drafts from the draft model: a [`Sequence`] of it behind the [`Drafter`] trait.

use std::sync::Arc;

use super::{DraftError, DraftRequest, Drafter, ProposalFuture};
use crate::model::{DraftSampling, DraftedToken, ModelError, Sequence};
use crate::speculation::{Draft, DraftDistribution, Proposal, TokenId};

/// One rollout's place in the draft model.
#[derive(Debug)]
pub struct NeuralDrafter {
    sequence: Sequence,
    usable_vocabulary: usize,
    /// As the last request had them; they seldom change.
    ends: Arc<[TokenId]>,
}

impl NeuralDrafter {
    /// Drafts by `sequence`. Ids of `usable_vocabulary` and above, which the target does not share, are never proposed:
    /// they are cut before the softmax, so q stays what is sampled.
    #[must_use]
    pub fn new(sequence: Sequence, usable_vocabulary: usize) -> Self {
        Self { sequence, usable_vocabulary, ends: Arc::default() }
    }

    async fn draft(&mut self, request: DraftRequest<'_>) -> Result<Proposal, DraftError> {
        let sampling = self.sampling(&request);
        match self.sequence.draft(request.context, sampling).await {
            Ok(drafted) => Ok(Proposal { drafts: drafted.into_iter().map(Draft::from).collect() }),
            // Nothing is wrong with the model: it has no idea about such a context.
            Err(ModelError::ContextTooLong { .. } | ModelError::EmptyContext) => Ok(Proposal::default()),
            Err(error @ ModelError::UnknownToken { .. }) => Err(DraftError::UnknownToken(error.to_string())),
            Err(error @ ModelError::Stopped) => Err(DraftError::Stopped(error.to_string())),
            Err(error) => Err(DraftError::Failed(error.to_string())),
        }
    }

    fn sampling(&mut self, request: &DraftRequest<'_>) -> DraftSampling {
        if *self.ends != *request.ends {
            self.ends = request.ends.into();
        }
        let default = DraftSampling::new(request.length, request.temperature);
        DraftSampling {
            top_m: request.top_k.map_or(default.top_m, |top_k| default.top_m.min(top_k.max(1))),
            usable_vocabulary: self.usable_vocabulary,
            stop: request.stop,
            ends: Arc::clone(&self.ends),
            ..default
        }
    }
}

impl From<DraftedToken> for Draft {
    fn from(drafted: DraftedToken) -> Self {
        let q = drafted.distribution.map_or(DraftDistribution::PointMass, DraftDistribution::Listed);
        Self::new(drafted.token, q).with_confidence(drafted.confidence)
    }
}

impl Drafter for NeuralDrafter {
    fn name(&self) -> &'static str {
        "neural"
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(self.draft(request))
    }

    fn prepare(&mut self, context: &[TokenId]) {
        self.sequence.prepare(context);
    }

    fn draft_ahead(&mut self, request: DraftRequest<'_>) {
        let sampling = self.sampling(&request);
        self.sequence.draft_ahead(request.context, sampling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{MAX_POSITIONS, TinyLlama, options};

    fn request(context: &[TokenId], temperature: f64) -> DraftRequest<'_> {
        DraftRequest { temperature, ..DraftRequest::new(context, 5) }
    }

    #[tokio::test]
    async fn proposes_point_masses_when_greedy_and_lists_when_not() {
        let model = TinyLlama::random(1).spawn(options());
        let mut drafter = NeuralDrafter::new(model.sequence(), 60);
        drafter.prepare(&[1, 2]);
        let greedy = drafter.propose(request(&[1, 2, 3], 0.0)).await.unwrap();
        assert!(greedy.is_certain() && greedy.drafts.len() == 5);
        let sampled = drafter.propose(DraftRequest { top_k: Some(4), ..request(&[1, 2, 3], 1.0) }).await.unwrap();
        for draft in &sampled.drafts {
            assert!(matches!(&draft.q, DraftDistribution::Listed(list) if list.len() == 4));
            assert!(draft.probability_of(draft.token) > 0.0);
        }
        assert!(greedy.tokens().chain(sampled.tokens()).all(|token| token < 60));
    }

    #[tokio::test]
    async fn a_context_beyond_the_model_gives_no_idea_and_a_foreign_token_or_a_dead_model_an_error() {
        let model = TinyLlama::random(1).spawn(options());
        let mut drafter = NeuralDrafter::new(model.sequence(), 96);
        let long = vec![1; MAX_POSITIONS + 1];
        assert_eq!(drafter.propose(request(&long, 1.0)).await.unwrap(), Proposal::default());
        drafter.prepare(&[1, 96]);
        assert!(matches!(drafter.propose(request(&[1, 96], 1.0)).await, Err(DraftError::UnknownToken(_))));
        assert_eq!(drafter.propose(request(&[1, 95], 1.0)).await.unwrap().drafts.len(), 5);
        model.stop();
        assert!(matches!(drafter.propose(request(&[1], 1.0)).await, Err(DraftError::Stopped(_))));
    }
}
