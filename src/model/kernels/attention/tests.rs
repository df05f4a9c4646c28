//! Attention over pages is attention.

use super::*;
use crate::model::kernels::registers::Compiled;

/// Keys and values of one head, in pages.
struct Held<E> {
    keys: Vec<E>,
    values: Vec<E>,
    key_factors: Vec<[f32; PAGE]>,
    value_factors: Vec<[f32; PAGE]>,
    head_dim: usize,
}

impl<E: Element> Held<E> {
    /// Of [positions, head_dim] each. What is not held is NaN, as far as it can be.
    fn new(keys: &[f32], values: &[f32], head_dim: usize) -> Self {
        let pages = (keys.len() / head_dim).div_ceil(PAGE);
        let mut nothing = E::default();
        E::write(&[f32::NAN], std::iter::once(&mut nothing));
        let (elements, factors) = (vec![nothing; pages * PAGE * head_dim], vec![[f32::NAN; PAGE]; pages]);
        let (key_factors, value_factors) = (factors.clone(), factors);
        let mut held = Self { keys: elements.clone(), values: elements, key_factors, value_factors, head_dim };
        let rows = keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
        for (position, (key, value)) in rows.enumerate() {
            let (page, within) = (position / PAGE, position % PAGE);
            let place = page * PAGE * head_dim;
            held.key_factors[page][within] =
                E::write(key, held.keys[place + within..].iter_mut().step_by(PAGE).take(head_dim));
            held.value_factors[page][within] =
                E::write(value, held.values[place + within * head_dim..].iter_mut().take(head_dim));
        }
        held
    }

    fn pages(&self) -> impl Iterator<Item = Page<'_, E>> + Clone {
        let page = PAGE * self.head_dim;
        let factors = self.key_factors.iter().zip(&self.value_factors);
        self.keys.chunks(page).zip(self.values.chunks(page)).zip(factors).map(|((keys, values), factors)| Page {
            keys,
            values,
            key_factors: factors.0,
            value_factors: factors.1,
        })
    }
}

fn wave(count: usize, pace: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * pace).sin() * 2.0).collect()
}

fn agrees<E: Element>(positions: usize, heads: usize, head_dim: usize, tolerance: f64) {
    let queries = wave(heads * head_dim, 0.31);
    let keys = wave(positions * head_dim, 0.73);
    let values = wave(positions * head_dim, 0.57);
    let held = Held::<E>::new(&keys, &values, head_dim);
    let (mut output, mut compiled) = (vec![0.0; heads * head_dim], vec![0.0; heads * head_dim]);
    attend(&queries, held.pages(), positions, head_dim, &mut output);
    let of = Attend { queries: &queries, pages: held.pages(), positions, head_dim, output: &mut compiled };
    of.run(Compiled);
    for (head, output) in (0..heads).chain(0..heads).zip(output.chunks(head_dim).chain(compiled.chunks(head_dim))) {
        let query = &queries[head * head_dim..][..head_dim];
        let dot = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(q * k)).sum::<f64>();
        let weight = |key| (dot(key) / (head_dim as f64).sqrt()).exp();
        let weights: Vec<f64> = keys.chunks(head_dim).map(weight).collect();
        let total: f64 = weights.iter().sum();
        for element in 0..head_dim {
            let at = |position: usize| f64::from(values[position * head_dim + element]);
            let expected: f64 = (0..positions).map(|p| weights[p] * at(p)).sum::<f64>() / total;
            let found = f64::from(output[element]);
            assert!((expected - found).abs() < tolerance, "{found} is not {expected}");
        }
    }
}

#[test]
fn pages_agree_with_the_plain_formula() {
    for (positions, heads) in [(1, 1), (2, 2), (15, 2), (16, 3), (17, 8), (64, 9), (65, 4), (80, 5), (200, 17)] {
        for head_dim in [6, 16, 20, 64] {
            agrees::<f32>(positions, heads, head_dim, 1e-5);
            agrees::<i16>(positions, heads, head_dim, 3e-4);
        }
    }
}

#[test]
fn what_is_no_number_in_what_is_held_is_not_hidden() {
    let mut keys = wave(3 * 16, 0.73);
    keys[20] = f32::NAN;
    let values = wave(3 * 16, 0.57);
    let mut output = [0.0; 16];
    attend(&[1.0; 16], Held::<i16>::new(&keys, &values, 16).pages(), 3, 16, &mut output);
    assert!(output.iter().all(|value| value.is_nan()));
    attend(&[1.0; 16], Held::<i16>::new(&keys, &values, 16).pages(), 1, 16, &mut output);
    assert!(output.iter().zip(&values).all(|(output, value)| (output - value).abs() < 1e-4));
}
