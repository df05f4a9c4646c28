//! How long closed-loop clients take directly, by the cost model's arithmetic alone: no socket, no task, no clock. What
//! the rig measures must be this, or its virtual time was disturbed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::rig::Workload;
use super::support::fake_vllm::{ApiThreads, CostModel, Key, Limits, Prompts, Queue};

/// Prompts of which nothing is ever cached.
struct Uncached;

impl Prompts for Uncached {
    fn cached(&mut self, _: Key) -> usize {
        0
    }

    fn computed(&mut self, _: Key, _: usize) {}
}

/// The time from the first requests of `workload` to its last reply, with prompts of `prompt` tokens.
pub fn crowd(model: &CostModel, workload: Workload, prompt: usize) -> Duration {
    let start = Instant::now();
    let limits = Limits { tokens: model.max_batched_tokens, sequences: model.max_sequences };
    let (mut threads, mut queue) = (ApiThreads::new(model.api_threads), Queue::default());
    // Who has been read by the API server when, in the order in which they were.
    let mut read: BTreeMap<(Instant, u64), Key> = BTreeMap::new();
    let (mut sent, mut now) = (0, start);
    let mut send = |read: &mut BTreeMap<_, _>, now, client| {
        let key = Key { seat: sent, index: client };
        read.insert((threads.book(now, model.request), sent), key);
        sent += 1;
    };
    let mut asked = vec![1; workload.clients];
    let mut got: BTreeMap<Key, usize> = BTreeMap::new();
    (0..workload.clients).for_each(|client| send(&mut read, now, client));
    loop {
        while let Some(first) = read.first_entry()
            && first.key().0 <= now
        {
            queue.join(first.remove(), prompt, workload.tokens);
        }
        let plan = queue.plan(limits, &mut Uncached);
        if plan.sampled.is_empty() && plan.load.prefilled == 0 {
            match read.first_key_value() {
                Some((&(at, _), _)) => now = at,
                None => return now - start,
            }
            continue;
        }
        now += model.step(plan.load);
        for key in plan.sampled {
            let tokens = got.entry(key).or_default();
            *tokens += 1;
            if *tokens == workload.tokens && asked[key.index] < workload.requests {
                asked[key.index] += 1;
                send(&mut read, now, key.index);
            }
        }
    }
}

#[test]
fn a_client_alone_takes_the_closed_form() {
    let model = CostModel::h100_8b();
    let workload = Workload { clients: 1, requests: 3, tokens: 20, temperature: 1.0 };
    assert_eq!(crowd(&model, workload, 100), 3 * model.alone(100, 20));
}

#[test]
fn a_crowd_shares_steps() {
    let model = CostModel { api_threads: 1_000, ..CostModel::h100_8b() };
    let workload = Workload { clients: 100, requests: 1, tokens: 10, temperature: 1.0 };
    let prefill = model.step + 100 * (model.sequence + 9 * model.prefilled_token);
    assert_eq!(crowd(&model, workload, 10), model.request + prefill + 9 * (model.step + 100 * model.sequence));
}
