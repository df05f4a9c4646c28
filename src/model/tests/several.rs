//! A backend that drafts several tokens a step, as one does that would lose time by coming back after each.

use rand::rngs::StdRng;

use super::*;
use crate::model::LoadedModel;
use crate::model::backend::{Backend, Feed, Outcome, Then};
use crate::model::config::ModelConfig;
use crate::speculation::StopRule;

pub(super) struct Several {
    inner: Box<dyn Backend>,
    most: usize,
}

impl Several {
    /// The same model, at most so many drafts a step.
    pub(super) fn of(loaded: LoadedModel, most: usize) -> LoadedModel {
        LoadedModel { backend: Box::new(Self { inner: loaded.backend, most }), ..loaded }
    }
}

impl Backend for Several {
    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn pages(&self) -> usize {
        self.inner.pages()
    }

    fn learn(&mut self, ids: &[TokenId]) {
        self.inner.learn(ids);
    }

    fn step(&mut self, feeds: &[Feed<'_>], rng: &mut StdRng) -> Result<Vec<Outcome>, ModelError> {
        let mut outcomes = self.inner.step(feeds, rng)?;
        for (feed, outcome) in feeds.iter().zip(&mut outcomes) {
            let (Then::Draft { sampling, at_most }, Outcome::Drafts(drafts)) = (feed.then, outcome) else { continue };
            while drafts.len() < at_most.min(self.most) {
                let tokens = [drafts.last().unwrap().token];
                let start = feed.start + feed.tokens.len() + drafts.len() - 1;
                let then = Then::Draft { sampling, at_most: at_most - drafts.len() };
                match self.inner.step(&[Feed { pages: feed.pages, start, tokens: &tokens, then }], rng)?.pop() {
                    Some(Outcome::Drafts(next)) => drafts.extend(next),
                    _ => panic!("no draft"),
                }
            }
        }
        Ok(outcomes)
    }
}

#[tokio::test]
async fn drafts_that_come_together_are_those_that_come_one_by_one() {
    let text = context(20);
    let rule = |least| StopRule { acceptance: [0.7; crate::speculation::CONFIDENCE_BINS], least };
    for least in [0.0, 0.3, 0.6] {
        let sampling = |length| DraftSampling { stop: rule(least), ..DraftSampling::new(length, 0.0) };
        let single = tiny().sequence().draft(&text, sampling(9)).await.unwrap();
        for most in [2, 4, 100] {
            let model = Several::of(TinyLlama::random(1).load(&options()), most).spawn().unwrap();
            let mut sequence = model.sequence();
            assert_eq!(sequence.draft(&text, sampling(9)).await.unwrap(), single);
            // Whatever was drafted beyond the end leaves nothing behind.
            let mut next = text.clone();
            next.extend(single.iter().map(|draft| draft.token));
            assert_eq!(sequence.logits(&next).await.unwrap(), tiny().sequence().logits(&next).await.unwrap());
        }
    }
}
