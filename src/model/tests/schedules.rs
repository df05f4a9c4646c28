//! Whatever sequences do, and whoever shares or takes their pages meanwhile, each drafts what it would alone.

use std::collections::HashMap;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::several::Several;
use super::*;
use crate::model::DraftedToken;
use crate::model::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use crate::model::sample::{Row, draw};

const SCHEDULES: u64 = 200;
const ROUNDS: usize = 12;
const SEQUENCES: usize = 32;
const LONGEST: usize = 80;

/// The model without any history: every answer is computed from its context's first token on, in pages of its own.
struct Alone {
    backend: Box<dyn Backend>,
    known: HashMap<Vec<TokenId>, Vec<f32>>,
}

impl Alone {
    fn new() -> Self {
        Self { backend: TinyLlama::random(1).load(&options()).backend, known: HashMap::new() }
    }

    fn logits(&mut self, text: &[TokenId]) -> &[f32] {
        let Self { backend, known } = self;
        known.entry(text.to_vec()).or_insert_with(|| {
            let pages: Vec<PageId> = (0..text.len().div_ceil(PAGE) as PageId).collect();
            let feed = Feed { pages: &pages, start: 0, tokens: text, then: Then::Logits };
            match backend.step(&[feed], &mut StdRng::seed_from_u64(0)).unwrap().pop() {
                Some(Outcome::Logits(logits)) => logits,
                _ => panic!("no logits"),
            }
        })
    }

    /// Checks that these tokens were drafted after `text`, or, if they were drawn, that each was drawn from the
    /// distribution that it is of.
    fn check(&mut self, text: &[TokenId], sampling: &DraftSampling, drafted: &[DraftedToken], what: &str) {
        let mut text = text.to_vec();
        assert_eq!(drafted.len(), sampling.length.min(LONGEST + 1 - text.len()), "{what}");
        for draft in drafted {
            let row = Row { logits: self.logits(&text), ids: None };
            let alone = draw(row, sampling, &mut StdRng::seed_from_u64(0)).unwrap();
            assert_eq!(alone.distribution, draft.distribution, "{what}");
            assert!(alone.token == draft.token || sampling.temperature > 0.0, "{what}");
            text.push(draft.token);
        }
    }
}

/// A rollout: its place in the model and what it has so far.
struct Rollout {
    sequence: Sequence,
    text: Vec<TokenId>,
}

/// The prompt of a group. Some differ from another only in the last token of a page, or of the prompt.
fn prompt(rng: &mut StdRng) -> Vec<TokenId> {
    let mut prompt = context([17, 32, 33, 47, 60][rng.random_range(0..5)]);
    let place = [15, 31, prompt.len() - 1, 0][rng.random_range(0..4)];
    if rng.random() && place < prompt.len() {
        prompt[place] ^= 1;
    }
    prompt
}

impl Rollout {
    /// Goes on as rollouts do: by what was drafted, as far as it was accepted, and a token of the server's; at times it
    /// is set back first.
    fn go_on(&mut self, drafted: &[DraftedToken], rng: &mut StdRng) {
        if rng.random_ratio(1, 6) {
            self.text.truncate(rng.random_range(1..=self.text.len()));
        }
        let accepted = rng.random_range(0..=drafted.len());
        self.text.extend(drafted[..accepted].iter().map(|draft| draft.token));
        let servers = match drafted.get(accepted) {
            Some(draft) if rng.random_ratio(1, 2) => draft.token,
            _ => rng.random_range(0..2),
        };
        self.text.push(servers);
        if rng.random_ratio(1, 8) {
            // A stretch that it decoded.
            self.text.extend((0..rng.random_range(1..30)).map(|token| token % 3));
        }
        self.text.truncate(LONGEST - 2);
    }
}

/// What one schedule made the model do.
#[derive(Default)]
struct Done {
    drafts: usize,
    evictions: u64,
    recalled: u64,
    used_ahead: u64,
}

async fn run(seed: u64, alone: &mut Alone) -> Done {
    let mut rng = StdRng::seed_from_u64(seed);
    let pages = LONGEST.div_ceil(PAGE) + [0, 3, 10, 40, 200][rng.random_range(0..5)];
    let rows_per_pass = [3, 16, 64][rng.random_range(0..3)];
    let options = ModelOptions { max_positions: Some(LONGEST), rows_per_pass, ..with_pages(pages) };
    let most = [1, 1, 3, 16][rng.random_range(0..4)];
    let model = Several::of(TinyLlama::random(1).load(&options), most).spawn().unwrap();
    let mut rollouts: Vec<Option<Rollout>> = (0..SEQUENCES).map(|_| None).collect();
    let mut done = Done::default();
    for round in 0..ROUNDS {
        // What this round asks comes all at once.
        let held = model.hold();
        let mut calls = Vec::new();
        for (number, place) in rollouts.iter_mut().enumerate() {
            if place.is_none() && rng.random_ratio(1, 4) {
                *place = Some(Rollout { sequence: model.sequence(), text: prompt(&mut rng) });
            }
            let Some(mut rollout) = place.take() else { continue };
            let temperature = if rng.random_ratio(1, 4) { 0.8 } else { 0.0 };
            let sampling = DraftSampling::new(rng.random_range(1..9), temperature);
            match rng.random_range(0..12) {
                0 => continue,
                1 => rollout.sequence.prepare(&rollout.text),
                2 => rollout.sequence.draft_ahead(&rollout.text, sampling),
                3 => {
                    // A client that goes away while it waits.
                    let mut call = Box::pin(rollout.sequence.draft(&rollout.text, sampling));
                    assert!(futures_util::poll!(&mut call).is_pending());
                }
                4..8 => {
                    calls.push(async move {
                        let drafted = rollout.sequence.draft(&rollout.text, sampling.clone()).await.unwrap();
                        (number, rollout, sampling, drafted)
                    });
                    continue;
                }
                _ => {}
            }
            *place = Some(rollout);
        }
        let calls = join_all(calls);
        tokio::pin!(calls);
        let answers = match futures_util::poll!(&mut calls) {
            std::task::Poll::Ready(answers) => answers,
            std::task::Poll::Pending => {
                drop(held);
                calls.await
            }
        };
        assert!(model.pages_held() <= model.pages());
        for (number, mut rollout, sampling, drafted) in answers {
            let what = format!("schedule {seed}, round {round}, sequence {number}: {:?}", rollout.text);
            alone.check(&rollout.text, &sampling, &drafted, &what);
            done.drafts += drafted.len();
            rollout.go_on(&drafted, &mut rng);
            rollouts[number] = Some(rollout);
        }
    }
    Done { evictions: model.evictions(), recalled: model.recalled(), used_ahead: model.used_ahead(), ..done }
}

#[tokio::test]
async fn random_schedules_give_each_sequence_what_it_has_alone() {
    let (mut alone, mut total) = (Alone::new(), Done::default());
    for seed in 0..SCHEDULES {
        let done = run(seed, &mut alone).await;
        total.drafts += done.drafts;
        total.evictions += done.evictions;
        total.recalled += done.recalled;
        total.used_ahead += done.used_ahead;
    }
    let Done { drafts, evictions, recalled, used_ahead } = total;
    println!("{drafts} drafts, {evictions} evictions, {recalled} tokens recalled, {used_ahead} drafts used from ahead");
    assert!(drafts > 20_000 && evictions > 1000 && recalled > 10_000 && used_ahead > 100);
}

#[tokio::test]
async fn the_reference_is_a_sequence_alone_in_a_fresh_model() {
    let mut alone = Alone::new();
    for text in [context(1), context(16), context(33), context(70)] {
        let drafted = tiny().sequence().draft(&text, DraftSampling::new(5, 0.0)).await.unwrap();
        alone.check(&text, &DraftSampling::new(5, 0.0), &drafted, "fresh");
        assert_eq!(tiny().sequence().logits(&text).await.unwrap(), alone.logits(&text));
    }
}
