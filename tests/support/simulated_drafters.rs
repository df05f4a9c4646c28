//! Drafters whose drafts the target accepts with a chosen probability, and which take a draft model's time.
//!
//! Exact verification accepts a draft from q with probability Σ min(p, q). Here q = (1 − λ) p + λ p', where p' is p with
//! its ranks reversed: the likeliest id has the least probability. Since Σ min(p, q) = 1 − λ TV(p, p') with the total
//! variation TV(p, p') = Σ max(0, p − p'), the acceptance is the chosen a for λ = (1 − a) / TV(p, p'), whatever p is. An a
//! below 1 − TV(p, p') cannot be had in this way; for a policy's p that is nearly 0.
//!
//! At temperature 0 the draft is the target's own choice with probability a, and the next likeliest id otherwise.
//!
//! They draft ahead where they are asked to, in the same model's steps. What they were told before is read already when
//! they draft: it is read while the server reads the prompt.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sidedraft::draft::{DraftRequest, Drafter, ProposalFuture};
use sidedraft::rollout::DrafterFactory;
use sidedraft::speculation::{Draft, DraftDistribution, Proposal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::draft_engine::DraftEngine;
use super::fake_vllm::{LanguageModel, SamplingParams};

/// Ids that are less likely than this are not drafted.
const NEVER: f64 = 1e-9;

/// What a target's distribution depends on: the last two ids, the temperature's bits and top-k.
type Place = ([Option<u32>; 2], u64, usize);

/// Ids and the probabilities with which they are drafted.
type Distribution = Vec<(u32, f64)>;

/// A drafter's knowledge of its target, shared by all rollouts.
pub struct Noise {
    language: LanguageModel,
    acceptance: f64,
    /// The distributions computed so far.
    known: Mutex<HashMap<Place, Arc<Distribution>>>,
}

impl Noise {
    /// Drafts for `language` that are accepted with probability `acceptance`.
    #[must_use]
    pub fn new(language: &LanguageModel, acceptance: f64) -> Self {
        assert!((0.0..=1.0).contains(&acceptance));
        Self { language: language.clone(), acceptance, known: Mutex::default() }
    }

    /// The next draft.
    pub fn draft(&self, context: &[u32], temperature: f64, top_k: Option<usize>, rng: &mut StdRng) -> Draft {
        if temperature <= 0.0 {
            let p = self.language.raw(context);
            let right = rng.random::<f64>() < self.acceptance;
            let token = by_probability(&p)[usize::from(!right)] as u32;
            let sure = self.distribution(context, 1.0, None);
            return Draft::certain(token).with_confidence(highest(&sure));
        }
        let list = self.distribution(context, temperature, top_k);
        let mut left: f64 = rng.random();
        let drawn = list.iter().find(|(_, q)| {
            left -= q;
            left < 0.0
        });
        let token = drawn.unwrap_or(&list[0]).0;
        Draft::new(token, DraftDistribution::Listed(list.to_vec())).with_confidence(highest(&list))
    }

    /// q after `context`.
    fn distribution(&self, context: &[u32], temperature: f64, top_k: Option<usize>) -> Arc<Distribution> {
        let mut last = context.iter().rev().copied();
        let place = ([last.next(), last.next()], temperature.to_bits(), top_k.unwrap_or(0));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let list = known.entry(place).or_insert_with(|| {
            let params = SamplingParams { temperature, top_k: place.2 as i64, ..SamplingParams::default() };
            let p = self.language.distribution(context, &params);
            Arc::new(mixture(&p, self.acceptance))
        });
        Arc::clone(list)
    }
}

/// The highest of q, by which a draft model tells how sure it is. It tells little here: whatever it is, a draft is
/// accepted as often.
fn highest(q: &[(u32, f64)]) -> f32 {
    q.iter().map(|(_, q)| *q).fold(0.0, f64::max) as f32
}

/// The ids of `p`, the likeliest first.
fn by_probability(p: &[f64]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..p.len()).collect();
    ids.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    ids
}

/// The q of this file's first lines for p.
#[must_use]
pub fn mixture(p: &[f64], acceptance: f64) -> Distribution {
    let ids = by_probability(p);
    let mut reversed = vec![0.0; p.len()];
    for (&id, &opposite) in ids.iter().zip(ids.iter().rev()) {
        reversed[id] = p[opposite];
    }
    let apart: f64 = p.iter().zip(&reversed).map(|(p, r)| (p - r).max(0.0)).sum();
    let noise = if apart > 0.0 { ((1.0 - acceptance) / apart).min(1.0) } else { 0.0 };
    let q = p.iter().zip(&reversed).map(|(p, r)| (1.0 - noise) * p + noise * r);
    let mut list: Vec<(u32, f64)> = (0..).zip(q).filter(|(_, q)| *q > NEVER).collect();
    let total: f64 = list.iter().map(|(_, q)| q).sum();
    list.iter_mut().for_each(|(_, q)| *q /= total);
    list
}

/// Makes a rollout's drafter.
pub struct Simulated {
    noise: Arc<Noise>,
    engine: DraftEngine,
    seeds: AtomicU64,
}

impl Simulated {
    /// Drafters for `language` that are right with probability `acceptance`, all on one `engine`.
    #[must_use]
    pub fn factory(language: &LanguageModel, acceptance: f64, engine: DraftEngine) -> Arc<dyn DrafterFactory> {
        let noise = Arc::new(Noise::new(language, acceptance));
        Arc::new(Self { noise, engine, seeds: AtomicU64::new(1) })
    }
}

impl DrafterFactory for Simulated {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        let rng = StdRng::seed_from_u64(self.seeds.fetch_add(1, Ordering::Relaxed));
        let (noise, engine) = (Arc::clone(&self.noise), self.engine.clone());
        vec![Box::new(SimulatedDrafter { noise, engine, rng, read: 0, ahead: None })]
    }
}

/// One rollout's drafter.
struct SimulatedDrafter {
    noise: Arc<Noise>,
    engine: DraftEngine,
    rng: StdRng,
    /// Tokens of the context that the model has read, drafts included.
    read: usize,
    ahead: Option<Ahead>,
}

impl Drafter for SimulatedDrafter {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(async move {
            let mut early = self.ahead.take().and_then(|ahead| ahead.after(&request));
            let mut last = last_of(request.context);
            let mut survival = 1.0;
            let mut drafts: Vec<Draft> = Vec::with_capacity(request.length);
            let mut unread = request.context.len().saturating_sub(self.read);
            while drafts.len() < request.length {
                let drafted = match &mut early {
                    Some(early) => early.next().await,
                    None => None,
                };
                let draft = match drafted {
                    Some(draft) => draft,
                    None => {
                        self.engine.token(std::mem::take(&mut unread)).await;
                        self.noise.draft(&last, request.temperature, request.top_k, &mut self.rng)
                    }
                };
                last.push(draft.token);
                let ends = request.ends.contains(&draft.token);
                let goes_on = request.stop.goes_on(&mut survival, draft.confidence);
                drafts.push(draft);
                if ends || !goes_on {
                    break;
                }
            }
            self.read = request.context.len() + drafts.len();
            Ok(Proposal { drafts })
        })
    }

    fn prepare(&mut self, context: &[u32]) {
        self.ahead = None;
        self.read = context.len();
    }

    fn draft_ahead(&mut self, request: DraftRequest<'_>) {
        self.ahead = None;
        let (noise, engine) = (Arc::clone(&self.noise), self.engine.clone());
        let mut rng = StdRng::from_rng(&mut self.rng);
        let (sender, coming) = mpsc::unbounded_channel();
        let DraftRequest { length, temperature, top_k, stop, .. } = request;
        let (mut last, ends) = (last_of(request.context), request.ends.to_vec());
        let task = tokio::spawn(async move {
            let mut survival = 1.0;
            for number in 0..length {
                engine.token(0).await;
                let draft = noise.draft(&last, temperature, top_k, &mut rng);
                last.push(draft.token);
                let over = ends.contains(&draft.token);
                // The first stands for the server's own token.
                let goes_on = number == 0 || stop.goes_on(&mut survival, draft.confidence);
                if sender.send(draft).is_err() || over || !goes_on {
                    return;
                }
            }
        });
        let context = request.context.to_vec();
        self.ahead = Some(Ahead { context, temperature, top_k, ready: VecDeque::new(), coming, task });
    }
}

/// What a place depends on, with room for drafts.
fn last_of(context: &[u32]) -> Vec<u32> {
    context[context.len().saturating_sub(2)..].to_vec()
}

/// Drafts made while a verification is in flight. Dropping it ends the work.
struct Ahead {
    context: Vec<u32>,
    temperature: f64,
    top_k: Option<usize>,
    /// Drafts that have come.
    ready: VecDeque<Draft>,
    coming: mpsc::UnboundedReceiver<Draft>,
    task: JoinHandle<()>,
}

impl Ahead {
    /// What follows `request`'s context, if that goes on as was drafted.
    fn after(mut self, request: &DraftRequest<'_>) -> Option<Self> {
        while let Ok(draft) = self.coming.try_recv() {
            self.ready.push_back(draft);
        }
        let same = (self.temperature, self.top_k) == (request.temperature, request.top_k);
        let given = request.context.strip_prefix(&self.context[..])?;
        let agrees = given.len() <= self.ready.len() && given.iter().zip(&self.ready).all(|(id, d)| *id == d.token);
        if !same || given.is_empty() || !agrees {
            return None;
        }
        self.ready.drain(..given.len());
        Some(self)
    }

    /// The next draft, once it has come; none after the last.
    async fn next(&mut self) -> Option<Draft> {
        match self.ready.pop_front() {
            Some(draft) => Some(draft),
            None => self.coming.recv().await,
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}
