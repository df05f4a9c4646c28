//! The model written down plainly, in double precision.

use rayon::prelude::*;

use super::shapes::widen;
use crate::model::cuda::weights::{Bf16, LayerWeights, Weights};
use crate::speculation::TokenId;

/// What becomes of keys and values before they are used.
type Kept = fn(f64) -> f64;

/// Logits after each token of a context, [tokens, vocabulary].
pub(super) fn logits(weights: &Weights, tokens: &[TokenId]) -> Vec<Vec<f64>> {
    logits_if_kept(weights, tokens, |value| value)
}

/// The same with a cache in bfloat16.
pub(super) fn logits_of_rounded_cache(weights: &Weights, tokens: &[TokenId]) -> Vec<Vec<f64>> {
    logits_if_kept(weights, tokens, |value| {
        let bits = (value as f32).to_bits();
        widen(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as Bf16).into()
    })
}

fn logits_if_kept(weights: &Weights, tokens: &[TokenId], kept: Kept) -> Vec<Vec<f64>> {
    let hidden = weights.config.hidden;
    let mut rows: Vec<Vec<f64>> = tokens
        .iter()
        .map(|token| weights.embedding[*token as usize * hidden..][..hidden].iter().map(|x| widen(*x).into()).collect())
        .collect();
    for layer in &weights.layers {
        attend(weights, layer, &mut rows, kept);
        rows.par_iter_mut().for_each(|row| {
            let both = multiply(&layer.gate_up, &norm(row, &layer.mlp_norm, weights));
            let (gate, up) = both.split_at(weights.config.intermediate);
            let activated: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            add(row, &multiply(&layer.down, &activated));
        });
    }
    let head = weights.head.as_ref().unwrap_or(&weights.embedding);
    rows.par_iter().map(|row| multiply(head, &norm(row, &weights.norm, weights))).collect()
}

fn attend(weights: &Weights, layer: &LayerWeights, rows: &mut [Vec<f64>], kept: Kept) {
    let config = &weights.config;
    let (query, kv, dim) = (config.query_width(), config.kv_width(), config.head_dim);
    let mut qkv: Vec<Vec<f64>> =
        rows.par_iter().map(|row| multiply(&layer.qkv, &norm(row, &layer.attention_norm, weights))).collect();
    for (position, row) in qkv.iter_mut().enumerate() {
        if let Some(bias) = &layer.qkv_bias {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += f64::from(*bias));
        }
        for (index, head) in row[..query + kv].chunks_exact_mut(dim).enumerate() {
            if let Some(norms) = &layer.head_norms {
                let normed = norm(head, if index < config.heads { &norms.query } else { &norms.key }, weights);
                head.copy_from_slice(&normed);
            }
            let (first, second) = head.split_at_mut(dim / 2);
            for ((x, y), frequency) in first.iter_mut().zip(second).zip(&weights.inverse_frequencies) {
                let (sine, cosine) = (position as f64 * f64::from(*frequency)).sin_cos();
                (*x, *y) = (*x * cosine - *y * sine, *y * cosine + *x * sine);
            }
        }
    }
    for row in &mut qkv {
        row[query..].iter_mut().for_each(|value| *value = kept(*value));
    }
    rows.par_iter_mut().enumerate().for_each(|(position, row)| {
        let attended: Vec<f64> = (0..config.heads)
            .flat_map(|head| {
                let shared = head / config.group() * dim;
                let own = &qkv[position][head * dim..][..dim];
                let scores: Vec<f64> = qkv[..=position]
                    .iter()
                    .map(|other| (dot(own, &other[query + shared..][..dim]) / (dim as f64).sqrt()).exp())
                    .collect();
                let total: f64 = scores.iter().sum();
                let weighted = |element: usize| -> f64 {
                    let values = qkv.iter().map(|other| other[query + kv + shared + element]);
                    values.zip(&scores).map(|(value, score)| value * score / total).sum()
                };
                (0..dim).map(weighted).collect::<Vec<_>>()
            })
            .collect();
        add(row, &multiply(&layer.output, &attended));
    });
}

fn norm(row: &[f64], weight: &[f32], weights: &Weights) -> Vec<f64> {
    let scale = (dot(row, row) / row.len() as f64 + f64::from(weights.config.rms_epsilon)).sqrt();
    row.iter().zip(weight).map(|(value, weight)| value / scale * f64::from(*weight)).collect()
}

fn multiply(matrix: &[Bf16], row: &[f64]) -> Vec<f64> {
    let product =
        |weights: &[Bf16]| weights.iter().zip(row).map(|(weight, value)| f64::from(widen(*weight)) * value).sum();
    matrix.chunks_exact(row.len()).map(product).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(row: &mut [f64], update: &[f64]) {
    row.iter_mut().zip(update).for_each(|(value, update)| *value += update);
}
