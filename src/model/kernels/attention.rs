//! Attention of one token's query heads to one key head, some pages at a time with a running maximum
//! (Milakov and Gimelshein 2018, arXiv:1805.02867), so that it needs no buffer that grows with the context.

use super::ops::{add_scaled, dot, exp};
use crate::model::backend::PAGE;

/// Pages whose scores are held at once.
const PAGES: usize = 4;

/// Query heads that go through these pages together, while they are in the first-level cache.
const HEADS: usize = 8;

/// Keys and values of a page, [positions, d] each, of at least one and at most [`PAGE`] positions; empty if there is none.
type Page<'k> = (&'k [f32], &'k [f32]);

/// softmax(q·Kᵀ / √d) · V for each of the query heads that share a key head.
///
/// `queries` and `output` are [heads, d]. There is at least one page, and all but the last are full.
pub(in crate::model) fn attend<'k>(
    queries: &[f32],
    pages: impl Iterator<Item = Page<'k>> + Clone,
    head_dim: usize,
    output: &mut [f32],
) {
    let scale = 1.0 / (head_dim as f32).sqrt();
    let width = HEADS * head_dim;
    for (queries, output) in queries.chunks(width).zip(output.chunks_mut(width)) {
        output.fill(0.0);
        let mut running = [Running { maximum: f32::NEG_INFINITY, total: 0.0 }; HEADS];
        let mut pages = pages.clone();
        while let Some(first) = pages.next() {
            let mut block: [Page<'k>; PAGES] = [first; PAGES];
            block[1..].fill_with(|| pages.next().unwrap_or_default());
            let heads = queries.chunks_exact(head_dim).zip(output.chunks_exact_mut(head_dim));
            for ((query, output), running) in heads.zip(&mut running) {
                running.add(query, &block, scale, output);
            }
        }
        for (output, running) in output.chunks_exact_mut(head_dim).zip(running) {
            output.iter_mut().for_each(|value| *value /= running.total);
        }
    }
}

/// What is known of one query head's softmax after some pages.
#[derive(Clone, Copy)]
struct Running {
    /// The highest score.
    maximum: f32,
    /// Σ exp(score − maximum).
    total: f32,
}

impl Running {
    /// Adds the pages' values to `output`, Σ exp(score − maximum) · value.
    fn add(&mut self, query: &[f32], pages: &[Page<'_>; PAGES], scale: f32, output: &mut [f32]) {
        let head_dim = query.len();
        // As long as full pages in any case: loops of a known length are what is fast.
        let mut weights = [[f32::NEG_INFINITY; PAGE]; PAGES];
        let mut highest = self.maximum;
        for (weights, (keys, _)) in weights.iter_mut().zip(pages) {
            for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(head_dim)) {
                *weight = dot(query, key) * scale;
                highest = highest.max(*weight);
            }
        }
        if highest > self.maximum {
            let shrink = exp(self.maximum - highest);
            self.total *= shrink;
            output.iter_mut().for_each(|value| *value *= shrink);
            self.maximum = highest;
        }
        for weight in weights.as_flattened_mut() {
            *weight = exp(*weight - highest);
        }
        for (weights, (_, values)) in weights.iter().zip(pages) {
            for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
                self.total += weight;
                add_scaled(output, *weight, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_agree_with_the_plain_formula() {
        let head_dim = 16;
        for (positions, heads) in [(1, 1), (2, 2), (15, 2), (16, 3), (17, 8), (64, 9), (200, 17)] {
            let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin() * 2.0).collect::<Vec<_>>();
            let queries = wave(heads * head_dim, 0.31);
            let keys = wave(positions * head_dim, 0.73);
            let values = wave(positions * head_dim, 0.57);
            let mut output = vec![0.0; heads * head_dim];
            let page = PAGE * head_dim;
            attend(&queries, keys.chunks(page).zip(values.chunks(page)), head_dim, &mut output);
            for head in 0..heads {
                let query = &queries[head * head_dim..][..head_dim];
                let score = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(q * k)).sum::<f64>() / 4.0;
                let weights: Vec<f64> = keys.chunks(head_dim).map(|key| score(key).exp()).collect();
                let total: f64 = weights.iter().sum();
                for element in 0..head_dim {
                    let at = |position: usize| f64::from(values[position * head_dim + element]);
                    let expected: f64 = (0..positions).map(|p| weights[p] * at(p)).sum::<f64>() / total;
                    assert!((expected - f64::from(output[head * head_dim + element])).abs() < 1e-5);
                }
            }
        }
    }
}
