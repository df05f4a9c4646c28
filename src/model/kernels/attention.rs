//! Attention of one token's query heads to the key head that they share, a block of positions at a time with a running
//! maximum (Milakov and Gimelshein 2018, arXiv:1805.02867), so that it needs no buffer that grows with the context.
//!
//! A page holds its keys element by element, so that one vector has the same element of several positions and the scores
//! of all of them come up side by side; values are held position by position. Blocks begin at multiples of [`BLOCK`], so
//! a result does not depend on where pages lie or what else is in the pass.

use super::element::Element;
use super::ops::exp;
use super::registers::{LANES, Registers, Work, with_widest};
use crate::model::backend::PAGE;

/// Pages whose scores are held at once.
const PAGES: usize = 4;

/// Their positions.
const BLOCK: usize = PAGES * PAGE;

/// Query heads that go through a block together, with what they share in registers.
const HEADS: usize = 4;

// One vector has an element of all positions of a page.
const _: () = assert!(LANES == PAGE);

/// A head's keys and values of [`PAGE`] positions, whether or not all are held.
#[derive(Clone, Copy)]
pub(in crate::model) struct Page<'k, E> {
    /// [head_dim, PAGE].
    pub(in crate::model) keys: &'k [E],
    /// [PAGE, head_dim].
    pub(in crate::model) values: &'k [E],
    /// What the keys of each position have to be multiplied with.
    pub(in crate::model) key_factors: &'k [f32; PAGE],
    /// The same of the values.
    pub(in crate::model) value_factors: &'k [f32; PAGE],
}

/// softmax(q·Kᵀ / √d) · V for each of the query heads that share a key head, over the first `positions`, at least one,
/// of `pages`.
///
/// `queries` and `output` are [heads, d].
pub(in crate::model) fn attend<'k, E: Element + 'k>(
    queries: &[f32],
    pages: impl Iterator<Item = Page<'k, E>> + Clone,
    positions: usize,
    head_dim: usize,
    output: &mut [f32],
) {
    with_widest(Attend { queries, pages, positions, head_dim, output });
}

/// The arguments of [`attend`].
struct Attend<'a, P> {
    queries: &'a [f32],
    pages: P,
    positions: usize,
    head_dim: usize,
    output: &'a mut [f32],
}

impl<'k, E: Element + 'k, P: Iterator<Item = Page<'k, E>> + Clone> Work for Attend<'_, P> {
    #[inline(always)]
    fn run(self, registers: impl Registers) {
        let head_dim = self.head_dim;
        let width = HEADS * head_dim;
        for (queries, output) in self.queries.chunks(width).zip(self.output.chunks_mut(width)) {
            let together = Attend { queries, pages: self.pages.clone(), output, ..self };
            match queries.len() / head_dim {
                1 => attend_together::<_, _, 1>(registers, together),
                2 => attend_together::<_, _, 2>(registers, together),
                3 => attend_together::<_, _, 3>(registers, together),
                _ => attend_together::<_, _, HEADS>(registers, together),
            }
        }
    }
}

/// [`attend`] for `N` query heads.
#[inline(always)]
fn attend_together<'k, R: Registers, E: Element + 'k, const N: usize>(
    registers: R,
    of: Attend<'_, impl Iterator<Item = Page<'k, E>>>,
) {
    let Attend { queries, mut pages, positions, head_dim, output } = of;
    let scale = 1.0 / (head_dim as f32).sqrt();
    // [head_dim, N]: in the order in which they meet the keys.
    let queries: Vec<[f32; N]> =
        (0..head_dim).map(|element| std::array::from_fn(|head| queries[head * head_dim + element] * scale)).collect();
    output.fill(0.0);
    let mut running = [Running { maximum: f32::NEG_INFINITY, total: 0.0 }; N];
    let mut first = 0;
    while let Some(page) = pages.next() {
        let mut block = [page; PAGES];
        let mut count = 1;
        for (place, page) in block[1..].iter_mut().zip(&mut pages) {
            *place = page;
            count += 1;
        }
        let held = (positions - first).min(BLOCK);
        first += BLOCK;
        let mut weights = [[[f32::NEG_INFINITY; PAGE]; PAGES]; N];
        if R::WIDE && count == PAGES {
            score::<R, E, N, PAGES>(registers, &queries, &block, &mut weights, 0);
        } else {
            for (index, page) in block[..count].iter().enumerate() {
                score::<R, E, N, 1>(registers, &queries, &[*page], &mut weights, index);
            }
        }
        for ((weights, running), output) in weights.iter_mut().zip(&mut running).zip(output.chunks_exact_mut(head_dim))
        {
            running.weigh(weights, held, output);
            for (weights, page) in weights.iter_mut().zip(&block[..count]) {
                weights.iter_mut().zip(page.value_factors).for_each(|(weight, factor)| *weight *= factor);
            }
        }
        add_values(registers, &weights, &block, held, head_dim, output);
    }
    for (output, running) in output.chunks_exact_mut(head_dim).zip(running) {
        output.iter_mut().for_each(|value| *value /= running.total);
    }
}

/// Scores of the positions of `P` pages, for each head from page `at` on.
#[inline(always)]
fn score<R: Registers, E: Element, const N: usize, const P: usize>(
    registers: R,
    queries: &[[f32; N]],
    pages: &[Page<'_, E>; P],
    scores: &mut [[[f32; PAGE]; PAGES]; N],
    at: usize,
) {
    let mut sums = [[registers.splat(0.0); P]; N];
    let mut all_keys: [&[[E; PAGE]]; P] = [&[]; P];
    for (keys, page) in all_keys.iter_mut().zip(pages) {
        *keys = &page.keys.as_chunks::<PAGE>().0[..queries.len()];
    }
    for (element, queries) in queries.iter().enumerate() {
        let mut keys = [registers.splat(0.0); P];
        for (keys, all_keys) in keys.iter_mut().zip(all_keys) {
            *keys = E::lanes(registers, &all_keys[element]);
        }
        for (sums, query) in sums.iter_mut().zip(queries) {
            let query = registers.splat(*query);
            for (sum, keys) in sums.iter_mut().zip(keys) {
                *sum = registers.mul_add(query, keys, *sum);
            }
        }
    }
    for (scores, sums) in scores.iter_mut().zip(sums) {
        for ((scores, sum), page) in scores[at..].iter_mut().zip(sums).zip(pages) {
            *scores = registers.to_array(sum);
            scores.iter_mut().zip(page.key_factors).for_each(|(score, factor)| *score *= factor);
        }
    }
}

/// Adds the weighted values of the block's `held` positions to each head of `output`.
#[inline(always)]
fn add_values<R: Registers, E: Element, const N: usize>(
    registers: R,
    weights: &[[[f32; PAGE]; PAGES]; N],
    pages: &[Page<'_, E>; PAGES],
    held: usize,
    head_dim: usize,
    output: &mut [f32],
) {
    /// Vectors of values that are added up together, where there are registers for it.
    const WIDE: usize = 4;
    let mut from = 0;
    while R::WIDE && from + WIDE * LANES <= head_dim {
        add_tile::<R, E, N, WIDE>(registers, weights, pages, held, head_dim, from, output);
        from += WIDE * LANES;
    }
    while from + LANES <= head_dim {
        add_tile::<R, E, N, 1>(registers, weights, pages, held, head_dim, from, output);
        from += LANES;
    }
    if from < head_dim {
        for (output, weights) in output.chunks_exact_mut(head_dim).zip(weights) {
            let rows = pages.iter().flat_map(|page| page.values.chunks_exact(head_dim));
            for (row, weight) in rows.zip(&weights.as_flattened()[..held]) {
                let places = output[from..].iter_mut().zip(&row[from..]);
                places.for_each(|(place, value)| *place += weight * value.value());
            }
        }
    }
}

/// [`add_values`] for `W` vectors of each value, from element `from` on.
#[inline(always)]
fn add_tile<R: Registers, E: Element, const N: usize, const W: usize>(
    registers: R,
    weights: &[[[f32; PAGE]; PAGES]; N],
    pages: &[Page<'_, E>; PAGES],
    held: usize,
    head_dim: usize,
    from: usize,
    output: &mut [f32],
) {
    let mut sums = [[registers.splat(0.0); W]; N];
    for (index, page) in pages[..held.div_ceil(PAGE)].iter().enumerate() {
        let rows = page.values.chunks_exact(head_dim).take(held - index * PAGE);
        for (row, position) in rows.zip(0..PAGE) {
            let vectors = &row[from..][..W * LANES].as_chunks::<LANES>().0[..W];
            let mut values = [registers.splat(0.0); W];
            for (values, vector) in values.iter_mut().zip(vectors) {
                *values = E::lanes(registers, vector);
            }
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = registers.splat(weights[index][position]);
                for (sum, values) in sums.iter_mut().zip(values) {
                    *sum = registers.mul_add(weight, values, *sum);
                }
            }
        }
    }
    for (output, sums) in output.chunks_exact_mut(head_dim).zip(sums) {
        for (places, sum) in output[from..].as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            places.iter_mut().zip(registers.to_array(sum)).for_each(|(place, sum)| *place += sum);
        }
    }
}

/// What is known of one query head's softmax after some blocks.
#[derive(Clone, Copy)]
struct Running {
    /// The highest score.
    maximum: f32,
    /// Σ exp(score − maximum).
    total: f32,
}

impl Running {
    /// Turns the scores of a block, of which the first `held` count, into weights exp(score − maximum), 0 for the others;
    /// sets `output`, the sum of weighted values so far, to the new maximum.
    #[inline(always)]
    fn weigh(&mut self, scores: &mut [[f32; PAGE]; PAGES], held: usize, output: &mut [f32]) {
        // What others left in a page may be anything, NaN too.
        scores.as_flattened_mut()[held..].fill(f32::NEG_INFINITY);
        let mut highest = [self.maximum; PAGE];
        for scores in scores.iter() {
            for (highest, score) in highest.iter_mut().zip(scores) {
                *highest = if *score > *highest { *score } else { *highest };
            }
        }
        let highest = highest.into_iter().fold(self.maximum, f32::max);
        if highest > self.maximum {
            let shrink = exp(self.maximum - highest);
            self.total *= shrink;
            output.iter_mut().for_each(|value| *value *= shrink);
            self.maximum = highest;
        }
        for score in scores.as_flattened_mut() {
            *score = exp(*score - highest);
        }
        scores.as_flattened_mut()[held..].fill(0.0);
        let mut totals = [0.0; PAGE];
        for weights in scores.iter() {
            for (total, weight) in totals.iter_mut().zip(weights) {
                *total += weight;
            }
        }
        self.total += totals.iter().sum::<f32>();
    }
}

#[cfg(test)]
mod tests;
