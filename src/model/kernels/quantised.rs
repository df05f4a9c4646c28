//! Products with 8-bit weights: blocks of 32 with one scale each (llama.cpp's Q8_0 with its scale in f32). Inputs are
//! rounded to 16 bits with one scale for all of an input, which adds little to the error of the weights and lets a
//! block be summed in integers, exactly: twice the speed of floats where arithmetic is the limit.
//!
//! A product adds in the same order however many inputs it meets at once, so its result does not depend on them. The
//! order is that of the processor's registers, so in its last bits it depends on the kind of processor.

use wide::i16x16;

/// Weights that share a scale.
pub(in crate::model) const BLOCK: usize = 32;

/// A block of 8-bit weights, which no cache line's border cuts.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(in crate::model) struct Weights(pub(in crate::model) [i8; BLOCK]);

/// Inputs that meet a block of weights: a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(in crate::model) struct Inputs(pub(in crate::model) [i16x16; 2]);

/// Rounds a block to 8 bits: the weight of largest magnitude becomes ±127. Returns the scale.
pub(in crate::model) fn quantise(values: &[f32; BLOCK], Weights(weights): &mut Weights) -> f32 {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (weight, value) in weights.iter_mut().zip(values) {
        *weight = (value * inverse).round() as i8;
    }
    largest / 127.0
}

/// Rounds an input, whose length is a multiple of [`BLOCK`], to 16 bits, appends it and returns its scale. A NaN
/// anywhere makes the scale, and so every product, NaN.
pub(in crate::model) fn round(values: &[f32], rounded: &mut Vec<Inputs>) -> f32 {
    let (inverse, scale) = scales(values);
    let half = |values: &[f32; 16]| i16x16::new(values.map(|value| to_integer(value * inverse)));
    rounded.extend(values.as_chunks::<BLOCK>().0.iter().map(|block| {
        let (halves, _) = block.as_chunks();
        Inputs([half(&halves[0]), half(&halves[1])])
    }));
    scale
}

/// What values have to be multiplied with so that the largest magnitude becomes 32767, and what brings them back. A NaN
/// anywhere makes the latter NaN, and an infinity makes it infinite.
pub(in crate::model) fn scales(values: &[f32]) -> (f32, f32) {
    const LARGEST: f32 = 32767.0;
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let broken = values.iter().fold(false, |broken, value| broken | value.is_nan());
    let inverse = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    (inverse, if broken { f32::NAN } else { largest / LARGEST })
}

/// The nearest integer, of equally near ones the even one, of a value whose magnitude is at most 32767.
#[inline(always)]
pub(in crate::model) fn to_integer(value: f32) -> i16 {
    /// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits. Conversions check for what does not fit
    /// and so do not vectorise.
    const ROUND: f32 = 12_582_912.0;
    (value + ROUND).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::model::kernels::registers::{Compiled, Registers, Work, with_widest};

    fn wave(i: usize) -> f32 {
        (i as f32 * 0.37).sin()
    }

    /// What holds of all registers that this machine has.
    fn on_all(holds: impl Work + Copy) {
        holds.run(Compiled);
        with_widest(holds);
    }

    #[derive(Clone, Copy)]
    struct AnyCompany;

    impl Work for AnyCompany {
        fn run(self, registers: impl Registers) {
            let blocks = 3;
            let exact: Vec<f32> = (0..blocks * BLOCK).map(wave).collect();
            let mut weights = vec![Weights([0; BLOCK]); blocks];
            let scales: Vec<f32> = exact.as_chunks().0.iter().zip(&mut weights).map(|(v, w)| quantise(v, w)).collect();
            let input = |n: usize| (0..blocks * BLOCK).map(|i| wave(i + 1000 * n)).collect::<Vec<f32>>();
            let plain: Vec<Vec<f32>> = (1..=4).map(input).collect();
            let mut rounded = Vec::new();
            let input_scales: Vec<f32> = plain.iter().map(|input| round(input, &mut rounded)).collect();
            let inputs: [&[Inputs]; 4] = std::array::from_fn(|n| &rounded[n * blocks..][..blocks]);
            let together = registers.dot((&weights, &scales), inputs);
            for (n, product) in together.into_iter().enumerate() {
                assert_eq!([product], registers.dot((&weights, &scales), [inputs[n]]));
                let expected: f32 = exact.iter().zip(&plain[n]).map(|(a, b)| a * b).sum();
                assert!((product * input_scales[n] - expected).abs() < 0.05);
            }
        }
    }

    #[test]
    fn products_agree_bit_for_bit_in_any_company_and_nearly_with_the_plain_sum() {
        on_all(AnyCompany);
    }

    #[derive(Clone, Copy)]
    struct Largest;

    impl Work for Largest {
        fn run(self, registers: impl Registers) {
            let mut rounded = Vec::new();
            let scale = round(&[-3.0; 2 * BLOCK], &mut rounded);
            for weight in [127, -127] {
                let [product] = registers.dot((&[Weights([weight; BLOCK]); 2], &[0.5; 2]), [&rounded]);
                assert!((product * scale - f32::from(weight) * 0.5 * -3.0 * 64.0).abs() < 1e-2);
            }
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        on_all(Largest);
    }

    #[test]
    fn rounding_is_within_half_a_step() {
        let values: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 * 1.7).sin() * 3.0);
        let (mut weights, mut inputs) = (Weights([0; BLOCK]), Vec::new());
        let scale = quantise(&values, &mut weights);
        let input_scale = round(&values, &mut inputs);
        let inputs = inputs[0].0.map(i16x16::to_array);
        for (index, value) in values.into_iter().enumerate() {
            assert!((f32::from(weights.0[index]) * scale - value).abs() <= scale * 0.5001);
            let input = f32::from(inputs[index / 16][index % 16]);
            assert!((input * input_scale - value).abs() <= input_scale * 0.5001 + 1e-6);
        }
        assert_eq!(quantise(&[0.0; BLOCK], &mut weights), 0.0);
        assert_eq!((weights.0, round(&[0.0; BLOCK], &mut Vec::new())), ([0; BLOCK], 0.0));
    }

    #[test]
    fn what_is_no_number_is_no_number_after_rounding() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut values, mut rounded) = ([1.0; BLOCK], Vec::new());
            values[5] = broken;
            let scale = round(&values, &mut rounded);
            assert!((Compiled.dot((&[Weights([1; BLOCK])], &[1.0]), [&rounded])[0] * scale).is_nan());
        }
    }
}
