//! Drafters whose q a test knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sidedraft::draft::{DraftError, DraftRequest, Drafter, ProposalFuture};
use sidedraft::rollout::DrafterFactory;
use sidedraft::speculation::{Draft, DraftDistribution, Proposal};

use super::support::fake_vllm::{LanguageModel, argmax};

/// Draws from the distribution of a language model, or takes its likeliest ids.
#[derive(Clone)]
pub struct Model {
    language: LanguageModel,
    /// How many of the likeliest ids it draws from; none to take the likeliest for sure.
    drawn_from: Option<usize>,
    seeds: Arc<AtomicU64>,
}

impl Model {
    fn draft(&self, context: &[u32], rng: &mut StdRng) -> Draft {
        let p = self.language.raw(context);
        let Some(drawn_from) = self.drawn_from else { return Draft::certain(argmax(&p) as u32) };
        let mut list: Vec<(u32, f64)> = (0..).zip(p).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list.truncate(drawn_from);
        let total: f64 = list.iter().map(|(_, q)| q).sum();
        list.iter_mut().for_each(|(_, q)| *q /= total);
        let mut left: f64 = rng.random();
        let drawn = list.iter().find(|(_, q)| {
            left -= q;
            left < 0.0
        });
        let token = drawn.unwrap_or(&list[0]).0;
        Draft::new(token, DraftDistribution::Listed(list))
    }
}

impl DrafterFactory for Model {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        let rng = StdRng::seed_from_u64(self.seeds.fetch_add(1, Ordering::Relaxed));
        vec![Box::new(Drawing { model: self.clone(), rng })]
    }
}

struct Drawing {
    model: Model,
    rng: StdRng,
}

impl Drafter for Drawing {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        let mut context = request.context.to_vec();
        let mut drafts = Vec::new();
        for _ in 0..request.length {
            let draft = self.model.draft(&context, &mut self.rng);
            context.push(draft.token);
            drafts.push(draft);
        }
        Box::pin(std::future::ready(Ok(Proposal { drafts })))
    }
}

/// A model whose weights are `drift` away from the target's: 0.3 is often right, 1 seldom.
fn drifted(target: &LanguageModel, drift: f64, drawn_from: Option<usize>) -> Arc<dyn DrafterFactory> {
    let language = LanguageModel { drift, ..target.with_weights("draft") };
    Arc::new(Model { language, drawn_from, seeds: Arc::default() })
}

/// Point masses that the target often agrees with.
pub fn often_right(target: &LanguageModel) -> Arc<dyn DrafterFactory> {
    drifted(target, 0.3, None)
}

/// Draws from all of a distribution not far from the target's.
pub fn drawing(target: &LanguageModel) -> Arc<dyn DrafterFactory> {
    drifted(target, 0.4, Some(usize::MAX))
}

/// Draws from the four likeliest ids of such a distribution.
pub fn drawing_from_four(target: &LanguageModel) -> Arc<dyn DrafterFactory> {
    drifted(target, 0.4, Some(4))
}

/// Draws from a distribution that has little to do with the target's.
pub fn mistaken(target: &LanguageModel) -> Arc<dyn DrafterFactory> {
    drifted(target, 1.0, Some(usize::MAX))
}

/// Draws from the target itself, almost.
pub fn almost_exact(target: &LanguageModel) -> Arc<dyn DrafterFactory> {
    drifted(target, 0.02, Some(usize::MAX))
}

/// What a drafter does when it is asked.
type Answer = dyn Fn(DraftRequest<'_>) -> Result<Proposal, DraftError> + Send + Sync;

/// Does as it is told.
#[derive(Clone)]
pub struct Told {
    answer: Arc<Answer>,
    is_free: bool,
}

pub fn told(
    answer: impl Fn(DraftRequest<'_>) -> Result<Proposal, DraftError> + Send + Sync + 'static,
) -> Arc<dyn DrafterFactory> {
    Arc::new(Told { answer: Arc::new(answer), is_free: false })
}

/// The same at no cost, as n-grams are.
pub fn told_for_free(
    answer: impl Fn(DraftRequest<'_>) -> Result<Proposal, DraftError> + Send + Sync + 'static,
) -> Arc<dyn DrafterFactory> {
    Arc::new(Told { answer: Arc::new(answer), is_free: true })
}

impl DrafterFactory for Told {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        vec![Box::new(self.clone())]
    }
}

impl Drafter for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(async move { (self.answer)(request) })
    }

    fn is_free(&self) -> bool {
        self.is_free
    }
}
