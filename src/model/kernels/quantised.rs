//! Products with 8-bit weights: blocks of 32 with one scale each (llama.cpp's Q8_0 with its scale in f32), inputs in
//! f32. Only the weights are rounded, and on a CPU this is no slower than rounding the inputs too: converting a
//! weight is hidden behind the memory that it comes from.
//!
//! [`dot`] and [`dot_4`] add in the same order, so a row's result does not depend on which of them computed it.
//!
//! The shape of these loops is what LLVM turns into AVX2; a tidier one, or a tree for the last sum, falls back to
//! scalar code at a fifth of the speed. Measure before and after a change.

use super::ops::fused;

/// Weights that share a scale.
pub(in crate::model) const BLOCK: usize = 32;

/// Lanes of an AVX2 register.
const LANES: usize = 8;

/// 8-bit weights, block by block.
pub(in crate::model) type Weights = [i8; BLOCK];

/// Inputs that meet a block of weights.
pub(in crate::model) type Inputs = [f32; BLOCK];

/// Rounds a block to 8 bits: the weight of largest magnitude becomes ±127. Returns the scale.
pub(in crate::model) fn quantise(values: &Inputs, weights: &mut Weights) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (weight, value) in weights.iter_mut().zip(values) {
        *weight = (value * inverse).round() as i8;
    }
    largest / 127.0
}

/// One row times one input, [blocks] each.
pub(in crate::model) fn dot(weights: &[Weights], scales: &[f32], inputs: &[Inputs]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for ((weights, inputs), scale) in weights.iter().zip(inputs).zip(scales) {
        let mut part = [0.0f32; LANES];
        for start in (0..BLOCK).step_by(LANES) {
            for lane in 0..LANES {
                part[lane] = fused(f32::from(weights[start + lane]), inputs[start + lane], part[lane]);
            }
        }
        for lane in 0..LANES {
            sums[lane] = fused(part[lane], *scale, sums[lane]);
        }
    }
    sums.iter().sum()
}

/// Widens weights for [`dot_4`], which then meets many inputs with them.
pub(in crate::model) fn widen(weights: &[Weights], wide: &mut [f32]) {
    for (wide, weight) in wide.iter_mut().zip(weights.as_flattened()) {
        *wide = f32::from(*weight);
    }
}

/// Four rows, widened and one after the other, times one input.
pub(in crate::model) fn dot_4(wide: &[f32], scales: &[f32], inputs: &[Inputs]) -> [f32; 4] {
    let blocks = inputs.len();
    let rows: [&[Inputs]; 4] =
        std::array::from_fn(|row| &wide[row * blocks * BLOCK..][..blocks * BLOCK].as_chunks().0[..blocks]);
    let scales: [&[f32]; 4] = std::array::from_fn(|row| &scales[row * blocks..][..blocks]);
    let mut sums = [Vector::ZERO; 4];
    for block in 0..blocks {
        let mut part = [Vector::ZERO; 4];
        for step in 0..BLOCK / LANES {
            let inputs = Vector(inputs[block].as_chunks().0[step]);
            for row in 0..4 {
                part[row] = Vector(rows[row][block].as_chunks().0[step]).fused(inputs, part[row]);
            }
        }
        for row in 0..4 {
            sums[row] = part[row].fused(Vector([scales[row][block]; LANES]), sums[row]);
        }
    }
    sums.map(|sum| sum.0.iter().sum())
}

/// A register's worth of floats.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Vector([f32; LANES]);

impl Vector {
    const ZERO: Self = Self([0.0; LANES]);

    #[inline(always)]
    fn fused(self, factor: Self, addend: Self) -> Self {
        let mut sum = addend.0;
        for ((sum, a), b) in sum.iter_mut().zip(self.0).zip(factor.0) {
            *sum = fused(a, b, *sum);
        }
        Self(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_products_agree_bit_for_bit_and_with_the_plain_sum() {
        let blocks = 3;
        let value = |i: usize| (i as f32 * 0.37).sin();
        let inputs: Vec<f32> = (0..blocks * BLOCK).map(|i| value(i + 1000)).collect();
        let inputs = inputs.as_chunks().0;
        let exact: Vec<f32> = (0..4 * blocks * BLOCK).map(value).collect();
        let mut weights = vec![[0; BLOCK]; 4 * blocks];
        let scales: Vec<f32> = exact.as_chunks().0.iter().zip(&mut weights).map(|(v, w)| quantise(v, w)).collect();
        let mut wide = vec![0.0; 4 * blocks * BLOCK];
        widen(&weights, &mut wide);
        let four = dot_4(&wide, &scales, inputs);
        for row in 0..4 {
            let place = row * blocks..(row + 1) * blocks;
            assert_eq!(four[row], dot(&weights[place.clone()], &scales[place], inputs));
            let exact = &exact[row * blocks * BLOCK..][..blocks * BLOCK];
            let plain: f32 = exact.iter().zip(inputs.as_flattened()).map(|(a, b)| a * b).sum();
            assert!((four[row] - plain).abs() < 0.05);
        }
    }

    #[test]
    fn rounding_is_within_half_a_step() {
        let values: Inputs = std::array::from_fn(|i| (i as f32 * 1.7).sin() * 3.0);
        let mut weights = [0; BLOCK];
        let scale = quantise(&values, &mut weights);
        for (weight, value) in weights.iter().zip(values) {
            assert!((f32::from(*weight) * scale - value).abs() <= scale * 0.5001);
        }
        assert_eq!(quantise(&[0.0; BLOCK], &mut weights), 0.0);
        assert_eq!(weights, [0; BLOCK]);
    }
}
