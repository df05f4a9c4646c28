//! Random distributions, drafts of them, and rows of them.

use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::speculation::{Draft, DraftDistribution, Entry, Row, TokenId};

/// A vocabulary's worth of probabilities that sum to 1, some of them negligible.
pub fn distribution(vocabulary: usize) -> impl Strategy<Value = Vec<f64>> {
    let weight = prop_oneof![6 => 0.01..1.0_f64, 1 => 1e-9..1e-6_f64];
    vec(weight, vocabulary).prop_map(|weights| normalised(&weights))
}

pub fn normalised(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// What a drafter draws from.
#[derive(Debug, Clone)]
pub struct DraftLaw {
    pub q: Vec<f64>,
    certain: bool,
}

impl DraftLaw {
    pub fn listed(q: Vec<f64>) -> Self {
        Self { q, certain: false }
    }

    /// The drafts that can come, each with its probability.
    pub fn drafts(&self) -> impl Iterator<Item = (Draft, f64)> + '_ {
        let possible = (0..).zip(&self.q).filter(|(_, q)| **q > 0.0);
        possible.map(|(token, q)| (self.draft(token), *q))
    }

    pub fn draft(&self, token: TokenId) -> Draft {
        if self.certain {
            return Draft::certain(token);
        }
        let list = (0..).zip(&self.q).filter(|(_, q)| **q > 0.0).map(|(id, q)| (id, *q)).collect();
        Draft::new(token, DraftDistribution::Listed(list))
    }
}

/// All of a distribution, its likeliest part renormalised, something near `p`, or a point mass.
pub fn draft_law(p: Vec<f64>) -> impl Strategy<Value = DraftLaw> {
    let vocabulary = p.len();
    let full = distribution(vocabulary).prop_map(|q| DraftLaw { q, certain: false });
    let truncated = (distribution(vocabulary), 1..=vocabulary).prop_map(|(mut q, keep)| {
        let mut order: Vec<usize> = (0..q.len()).collect();
        order.sort_by(|a, b| q[*b].total_cmp(&q[*a]));
        order[keep..].iter().for_each(|id| q[*id] = 0.0);
        DraftLaw { q: normalised(&q), certain: false }
    });
    let near = (distribution(vocabulary), 1e-4..0.3_f64).prop_map(move |(noise, share)| {
        let mixed: Vec<f64> = p.iter().zip(&noise).map(|(p, noise)| (1.0 - share) * p + share * noise).collect();
        DraftLaw { q: normalised(&mixed), certain: false }
    });
    let certain = (0..vocabulary).prop_map(move |token| {
        let mut q = vec![0.0; vocabulary];
        q[token] = 1.0;
        DraftLaw { q, certain: true }
    });
    prop_oneof![full, truncated, near, certain]
}

/// The row of `draft` that a server with the distribution `p` gives: its `n` likeliest ids, and the draft.
pub fn row(p: &[f64], n: usize, draft: TokenId) -> Row {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*b].total_cmp(&p[*a]).then(b.cmp(a)));
    order.truncate(n);
    if !order.contains(&(draft as usize)) {
        order.insert(0, draft as usize);
    }
    let entry = |id: usize| Entry { token: id as TokenId, logprob: p[id].ln().max(-9999.0) };
    Row::new(order.into_iter().map(entry).collect(), n).unwrap()
}

/// Target, drafter and the length of rows.
pub fn case() -> impl Strategy<Value = (Vec<f64>, DraftLaw, usize)> {
    (2..=12_usize)
        .prop_flat_map(distribution)
        .prop_flat_map(|p| (Just(p.clone()), draft_law(p.clone()), 0..=p.len() + 1))
}
