//! Ten million tokens of history: how fast they go in, how long a proposal takes, and what they weigh.
//!
//! `cargo bench --bench history`. The throughputs are in tokens; the times named p99 are the 99th percentile of a thousand
//! proposals, each timed alone. Bytes per token are printed first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sidedraft::history::suffix::{Stream, SuffixIndex};
use sidedraft::history::{Finish, History, Memory, PromptKey, Tenant};
use sidedraft::speculation::{Entry, Sampling, Scored, TokenId};

const PROMPTS: usize = 1250;
const SIBLINGS: usize = 16;
const LENGTH: usize = 500;
const TOKENS: usize = PROMPTS * SIBLINGS * LENGTH;
/// Tokens that a rollout commits at a time.
const ROUND: usize = 8;

/// The rollouts of each prompt: variations of one text, that leave it or jump within it every ten tokens.
fn rollouts() -> Vec<Vec<Vec<TokenId>>> {
    let mut rng = StdRng::seed_from_u64(7);
    // Some ids are much more frequent than others.
    let word = |rng: &mut StdRng| (32_000.0 * rng.random::<f64>().powi(4)) as TokenId;
    let group = |rng: &mut StdRng| {
        let text: Vec<TokenId> = (0..LENGTH).map(|_| word(rng)).collect();
        let sibling = |_| {
            let mut at = 0;
            let mut next = || {
                at = if rng.random_bool(0.02) { rng.random_range(0..LENGTH) } else { (at + 1) % LENGTH };
                if rng.random_bool(0.08) { word(rng) } else { text[at] }
            };
            (0..LENGTH).map(|_| next()).collect()
        };
        (0..SIBLINGS).map(sibling).collect()
    };
    (0..PROMPTS).map(|_| group(&mut rng)).collect()
}

/// Siblings that grow at the same time, a round each.
fn grow(index: &mut SuffixIndex, group: &[Vec<TokenId>]) {
    let mut streams = vec![Stream::default(); group.len()];
    for start in (0..LENGTH).step_by(ROUND) {
        for (stream, rollout) in streams.iter_mut().zip(group) {
            index.extend(stream, &rollout[start..(start + ROUND).min(LENGTH)]);
        }
    }
}

fn one_index(groups: &[Vec<Vec<TokenId>>]) -> SuffixIndex {
    let mut index = SuffixIndex::new(2 * TOKENS);
    groups.iter().for_each(|group| grow(&mut index, group));
    index
}

fn an_index_each(groups: &[Vec<Vec<TokenId>>]) -> Vec<SuffixIndex> {
    let index = |group: &Vec<_>| {
        let mut index = SuffixIndex::new(1 << 16);
        grow(&mut index, group);
        index
    };
    groups.iter().map(index).collect()
}

/// The 99th percentile of the times of a thousand proposals, `times` times over.
fn p99(times: u64, groups: &[Vec<Vec<TokenId>>], mut propose: impl FnMut(usize, &[TokenId]) -> usize) -> Duration {
    let mut rng = StdRng::seed_from_u64(times);
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let mut each: Vec<Duration> = (0..1000)
            .map(|_| {
                let (prompt, sibling) = (rng.random_range(0..PROMPTS), rng.random_range(0..SIBLINGS));
                let context = &groups[prompt][sibling][..rng.random_range(16..LENGTH)];
                let start = Instant::now();
                black_box(propose(prompt, context));
                start.elapsed()
            })
            .collect();
        each.sort_unstable();
        total += each[989];
    }
    total
}

fn suffixes(criterion: &mut Criterion) {
    let groups = rollouts();
    let mut group = criterion.benchmark_group("suffix");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("insert, one index", |bencher| bencher.iter_with_large_drop(|| one_index(&groups)));
    group
        .bench_function("insert, an index a prompt", |bencher| bencher.iter_with_large_drop(|| an_index_each(&groups)));
    group.throughput(Throughput::Elements(1));
    let (mut one, mut each) = (one_index(&groups), an_index_each(&groups));
    let tokens = |indexes: &[SuffixIndex]| indexes.iter().map(SuffixIndex::len).sum::<usize>();
    let bytes = |indexes: &[SuffixIndex]| indexes.iter().map(SuffixIndex::bytes).sum::<usize>();
    eprintln!("one index: {} tokens, {:.1} bytes each", one.len(), one.bytes() as f64 / one.len() as f64);
    eprintln!(
        "an index a prompt: {} tokens, {:.1} bytes each",
        tokens(&each),
        bytes(&each) as f64 / tokens(&each) as f64
    );
    let mut drafted = (0_usize, 0_usize);
    group.bench_function("proposal p99, one index", |bencher| {
        bencher.iter_custom(|times| {
            p99(times, &groups, |_, context| {
                let length = one.propose(context, 32, 0.02).len();
                drafted = (drafted.0 + 1, drafted.1 + length);
                length
            })
        });
    });
    eprintln!("{:.1} tokens a proposal", drafted.1 as f64 / drafted.0 as f64);
    group.bench_function("proposal p99, an index a prompt", |bencher| {
        bencher
            .iter_custom(|times| p99(times, &groups, |prompt, context| each[prompt].propose(context, 32, 0.02).len()));
    });
    group.finish();
}

/// Rows of twenty ids, each half as likely as the one before: thirteen of them are kept.
fn scored(tokens: &[TokenId]) -> Vec<Scored> {
    let entry = |at: u32| Entry { token: 1000 + at, logprob: -f64::from(at + 1) * std::f64::consts::LN_2 };
    let top: Vec<Entry> = (0..20).map(entry).collect();
    tokens.iter().map(|token| Scored { token: *token, logprob: -1.0, rank: None, top: top.clone() }).collect()
}

fn fill(store: &Memory, keys: &[PromptKey], round: &[Scored]) {
    let version: Arc<str> = "1".into();
    for key in keys {
        let ids: Vec<_> =
            (0..SIBLINGS).map(|_| store.begin(key, &version, Sampling::new(1.0, None, 1.0, 0.0))).collect();
        for start in (0..LENGTH).step_by(ROUND) {
            for id in &ids {
                assert!(store.extend(key, *id, &version, &round[..ROUND.min(LENGTH - start)]));
            }
        }
        ids.iter().for_each(|id| assert!(store.finish(key, *id, Finish::Stop)));
    }
}

fn rows(criterion: &mut Criterion) {
    let round = scored(&[1; ROUND]);
    let key = |prompt: usize| PromptKey::new(Tenant::new(&[]), "m", &[prompt as TokenId; 200]);
    let keys: Vec<_> = (0..PROMPTS).map(key).collect();
    let store = Memory::new(4 << 30);
    fill(&store, &keys, &round);
    eprintln!("rollouts with rows of 13 kept ids: {:.1} bytes a token", store.usage().bytes_per_token());
    drop(store);
    let mut group = criterion.benchmark_group("rollouts");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("insert with rows", |bencher| {
        bencher.iter_with_large_drop(|| {
            let store = Memory::new(4 << 30);
            fill(&store, &keys, &round);
            store
        });
    });
    group.finish();
}

criterion_group!(benches, suffixes, rows);
criterion_main!(benches);
