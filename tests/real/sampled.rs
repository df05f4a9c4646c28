//! Samples of answers' first tokens, and whether they come from the server's own distribution.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::server::{full_distribution, ids, server};
use crate::support::harness::{Harness, client, success};
use crate::support::stats::{GTest, chi_square_survival, g_test};

/// Tokens of a sample.
pub const TOKENS: usize = 3;
/// Requests in flight.
const AT_ONCE: usize = 40;
/// A conditional distribution is tested where at least so many samples share the prefix.
const ENOUGH: u64 = 40;

/// Sampling parameters, as a request gives them and as vLLM applies them.
#[derive(Clone, Copy)]
pub struct Sampling {
    pub temperature: f64,
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
}

/// Nothing truncated, at temperature 1.
pub const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

impl Sampling {
    /// The distribution that vLLM samples from: temperature, then min-p, then top-k, then top-p.
    fn apply(&self, logprobs: &[f64]) -> Vec<f64> {
        let scaled: Vec<f64> = logprobs.iter().map(|logprob| (logprob / self.temperature).exp()).collect();
        let mut order: Vec<usize> = (0..scaled.len()).collect();
        order.sort_by(|a, b| scaled[*b].total_cmp(&scaled[*a]));
        order.retain(|id| scaled[*id] >= self.min_p * scaled[order_first(&scaled)]);
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let mass: f64 = order.iter().map(|id| scaled[*id]).sum();
        let mut above = 0.0;
        let mut kept = vec![0.0; scaled.len()];
        for id in order {
            if above >= self.top_p {
                break;
            }
            kept[id] = scaled[id];
            above += scaled[id] / mass;
        }
        let mass: f64 = kept.iter().sum();
        kept.iter().map(|p| p / mass).collect()
    }
}

fn order_first(values: &[f64]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

/// The first tokens of `count` answers to `prompt`.
pub async fn samples(sidecar: &Harness, prompt: &[u32], sampling: Sampling, count: usize) -> Vec<Vec<u32>> {
    // Many rollouts of one prompt in a request, as a trainer samples a group.
    const GROUP: usize = 10;
    let request = json!({
        "prompt": prompt, "max_tokens": TOKENS, "n": GROUP, "ignore_eos": true, "return_token_ids": true,
        "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p
    });
    let replies: Vec<Value> = futures_util::stream::iter(0..count.div_ceil(GROUP))
        .map(|_| sidecar.complete(&request))
        .buffer_unordered(AT_ONCE.div_ceil(GROUP))
        .collect()
        .await;
    replies.iter().flat_map(|reply| reply["choices"].as_array().unwrap()).map(ids).collect()
}

/// Whether the samples come from the server's distribution: the first token's, and each later one's given those before
/// it, wherever enough samples share a prefix.
pub async fn judge(prompt: &[u32], sampling: Sampling, samples: &[Vec<u32>]) -> GTest {
    let mut by_prefix: BTreeMap<&[u32], BTreeMap<u32, u64>> = BTreeMap::new();
    for sample in samples {
        for position in 0..TOKENS {
            *by_prefix.entry(&sample[..position]).or_default().entry(sample[position]).or_default() += 1;
        }
    }
    let (mut g, mut dof) = (0.0, 0);
    for (prefix, counts) in by_prefix {
        if counts.values().sum::<u64>() < ENOUGH {
            continue;
        }
        let p = sampling.apply(&full_distribution(&server("float32"), &[prompt, prefix].concat()).await);
        let mut observed = vec![0; p.len()];
        for (id, count) in counts {
            assert!(p[id as usize] > 0.0, "token {id} after {prefix:?} cannot come from this distribution");
            observed[id as usize] = count;
        }
        let test = g_test(&observed, &p);
        g += test.g;
        dof += test.dof;
    }
    GTest { g, dof, p_value: chi_square_survival(g, dof) }
}

/// The ids of a text on the server.
pub async fn tokenize(text: &str) -> Vec<u32> {
    let reply = client().post(format!("{}/tokenize", server("float32"))).json(&json!({ "prompt": text }));
    let reply = success(reply.send().await.unwrap()).await;
    reply["tokens"].as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}
