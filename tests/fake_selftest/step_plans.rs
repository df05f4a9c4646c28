//! What a step computes, for any sequences that come and go: everybody gets every token, nobody's is computed twice, and no
//! step does more than it may.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::support::fake_vllm::{ApiThreads, CostModel, DraftCost, Key, Limits, Prompts, Queue, StepLoad};

/// A cache that serves a fixed part of each prompt.
#[derive(Default)]
struct Known {
    cached: BTreeMap<Key, usize>,
    computed: BTreeMap<Key, usize>,
    asked: Vec<Key>,
}

impl Prompts for Known {
    fn cached(&mut self, key: Key) -> usize {
        self.asked.push(key);
        self.cached[&key]
    }

    fn computed(&mut self, key: Key, upto: usize) {
        self.computed.insert(key, upto);
    }
}

fn key(seat: usize) -> Key {
    Key { seat: seat as u64, index: 0 }
}

proptest! {
    /// Each sequence is (steps before it comes, cached tokens, other tokens of its prompt, tokens to generate).
    #[test]
    fn a_queue_computes_everything_once_within_its_limits(
        sequences in prop::collection::vec((0_usize..20, 0_usize..50, 1_usize..60, 1_usize..12), 1..16),
        tokens in 8_usize..64,
        most_running in 1_usize..8,
    ) {
        let limits = Limits { tokens, sequences: most_running };
        let mut prompts = Known::default();
        let mut queue = Queue::default();
        let mut got: BTreeMap<Key, usize> = BTreeMap::new();
        let mut computed = 0;
        let mut step = 0;
        loop {
            for (seat, &(_, cached, rest, most)) in sequences.iter().enumerate().filter(|(_, s)| s.0 == step) {
                prompts.cached.insert(key(seat), cached);
                queue.join(key(seat), cached + rest, most);
            }
            step += 1;
            let plan = queue.plan(limits, &mut prompts);
            let StepLoad { sampled, prefilled } = plan.load;
            prop_assert!(sampled + prefilled <= tokens);
            prop_assert!(queue.running() <= most_running);
            prop_assert_eq!(sampled, plan.sampled.len());
            computed += sampled + prefilled;
            plan.sampled.iter().for_each(|&key| *got.entry(key).or_default() += 1);
            if plan.load == StepLoad::default() && step > 20 {
                break;
            }
            prop_assert!(step < 2_000, "it never ends");
        }
        prop_assert_eq!(queue.running() + queue.waiting(), 0);
        prop_assert_eq!(prompts.asked.len(), sequences.len(), "each prompt is looked up once");
        for (seat, &(_, cached, rest, most)) in sequences.iter().enumerate() {
            prop_assert_eq!(got[&key(seat)], most);
            prop_assert_eq!(prompts.computed[&key(seat)], cached + rest + most - 1);
        }
        let needed: usize = sequences.iter().map(|(_, _, rest, most)| rest + most - 1).sum();
        prop_assert_eq!(computed, needed);
    }

    /// Work that comes in order is begun in order, and no thread is idle while work waits.
    #[test]
    fn api_threads_serve_in_order(work in prop::collection::vec((0_u64..5, 1_u64..9), 1..40), threads in 1_usize..5) {
        let start = Instant::now();
        let mut pool = ApiThreads::new(threads);
        let (mut now, mut ends): (u64, Vec<u64>) = (0, Vec::new());
        let mut last_begin = 0;
        for (gap, length) in work {
            now += gap;
            let done = pool.book(start + Duration::from_secs(now), Duration::from_secs(length));
            let done = done.duration_since(start).as_secs();
            let begin = done - length;
            let busy = |at: u64| ends.iter().filter(|&&end| end > at).count();
            prop_assert!(begin >= now && begin >= last_begin);
            prop_assert!(busy(begin) < threads, "a thread does two things at once");
            prop_assert!(begin == now || busy(begin - 1) >= threads, "a thread is idle while work waits");
            last_begin = begin;
            ends.push(done);
        }
    }
}

#[test]
fn a_sequence_that_leaves_is_in_no_later_step() {
    let limits = Limits { tokens: 100, sequences: 8 };
    let mut prompts = Known { cached: (0..3).map(|seat| (key(seat), 0)).collect(), ..Known::default() };
    let mut queue = Queue::default();
    (0..3).for_each(|seat| queue.join(key(seat), 10, 10));
    assert_eq!(queue.plan(limits, &mut prompts).load, StepLoad { sampled: 3, prefilled: 27 });
    queue.leave(|left| left == key(1));
    let plan = queue.plan(limits, &mut prompts);
    assert_eq!((plan.sampled, plan.load), (vec![key(0), key(2)], StepLoad { sampled: 2, prefilled: 0 }));
}

#[test]
fn a_prompt_beyond_the_budget_is_computed_in_chunks_beside_those_that_run() {
    let limits = Limits { tokens: 100, sequences: 8 };
    let mut prompts = Known { cached: (0..2).map(|seat| (key(seat), 0)).collect(), ..Known::default() };
    let mut queue = Queue::default();
    queue.join(key(0), 1, 10);
    queue.plan(limits, &mut prompts);
    queue.join(key(1), 250, 10);
    let loads: Vec<(usize, usize)> =
        (0..4).map(|_| queue.plan(limits, &mut prompts).load).map(|load| (load.sampled, load.prefilled)).collect();
    assert_eq!(loads, [(1, 99), (1, 99), (2, 51), (2, 0)]);
}

#[test]
fn the_profile_costs_what_it_says() {
    let model = CostModel::h100_8b();
    let micros = |sampled, prefilled| model.step(StepLoad { sampled, prefilled }).as_micros();
    assert_eq!((micros(1, 0), micros(32, 0), micros(1, 12)), (6_230, 7_160, 6_710));
    assert_eq!(model.alone(1024, 512).as_micros(), 1_200 + 6_230 + 1023 * 40 + 511 * 6_230);
    let draft = DraftCost::h100_8b();
    assert_eq!([1, 2, 32].map(|rows| draft.step(rows, 500).as_micros()), [600, 620, 1_220]);
}
