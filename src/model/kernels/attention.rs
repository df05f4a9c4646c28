//! Attention of one token's query heads to one key head, in blocks with a running maximum
//! (Milakov and Gimelshein 2018, arXiv:1805.02867), so that it needs no buffer that grows with the context.

use super::ops::{add_scaled, dot, exp};

/// Positions whose scores are held at once.
const BLOCK: usize = 64;

/// softmax(q·Kᵀ / √d) · V for each of the query heads that share a key head.
///
/// `queries` and `output` are [heads, d]; `keys` and `values` are [positions, d], at least one position.
pub(in crate::model) fn attend(queries: &[f32], keys: &[f32], values: &[f32], head_dim: usize, output: &mut [f32]) {
    let scale = 1.0 / (head_dim as f32).sqrt();
    for (query, output) in queries.chunks_exact(head_dim).zip(output.chunks_exact_mut(head_dim)) {
        attend_head(query, keys, values, scale, output);
    }
}

fn attend_head(query: &[f32], keys: &[f32], values: &[f32], scale: f32, output: &mut [f32]) {
    let head_dim = query.len();
    let mut weights = [0.0f32; BLOCK];
    let mut maximum = f32::NEG_INFINITY;
    let mut total = 0.0;
    output.fill(0.0);
    for (keys, values) in keys.chunks(BLOCK * head_dim).zip(values.chunks(BLOCK * head_dim)) {
        let weights = &mut weights[..keys.len() / head_dim];
        let mut highest = maximum;
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(head_dim)) {
            *weight = dot(query, key) * scale;
            highest = highest.max(*weight);
        }
        if highest > maximum {
            let shrink = exp(maximum - highest);
            total *= shrink;
            output.iter_mut().for_each(|value| *value *= shrink);
            maximum = highest;
        }
        for weight in weights.iter_mut() {
            *weight = exp(*weight - maximum);
        }
        for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
            total += weight;
            add_scaled(output, *weight, value);
        }
    }
    output.iter_mut().for_each(|value| *value /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_agree_with_the_plain_formula() {
        let (head_dim, heads) = (16, 2);
        for positions in [1, 2, 63, 64, 65, 200] {
            let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin() * 2.0).collect::<Vec<_>>();
            let queries = wave(heads * head_dim, 0.31);
            let keys = wave(positions * head_dim, 0.73);
            let values = wave(positions * head_dim, 0.57);
            let mut output = vec![0.0; heads * head_dim];
            attend(&queries, &keys, &values, head_dim, &mut output);
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
