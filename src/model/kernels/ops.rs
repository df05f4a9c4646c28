//! Dot products, normalisation and activations.

/// Elements per step of a dot product, and lanes of an AVX2 register.
const STEP: usize = 32;
const LANES: usize = 8;

/// `a · b + c`, fused where the target has the instruction; elsewhere `mul_add` would call a slow library function.
#[inline(always)]
pub(in crate::model) fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}

/// Σ aᵢ·bᵢ over slices of equal length. As in [`super::quantised`], the loop's shape is what makes it fast.
#[inline]
pub(in crate::model) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_steps, a_rest) = a.as_chunks::<STEP>();
    let (b_steps, b_rest) = b.as_chunks::<STEP>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_steps.iter().zip(b_steps) {
        let mut part = [0.0f32; LANES];
        for start in (0..STEP).step_by(LANES) {
            for lane in 0..LANES {
                part[lane] = fused(a[start + lane], b[start + lane], part[lane]);
            }
        }
        for lane in 0..LANES {
            sums[lane] += part[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `into` += `from`.
#[inline]
pub(in crate::model) fn add(into: &mut [f32], from: &[f32]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += from;
    }
}

/// x · weight / √(mean(x²) + ε), Zhang and Sennrich 2019 (arXiv:1910.07467).
pub(in crate::model) fn rms_norm(input: &[f32], weight: &[f32], epsilon: f32, output: &mut [f32]) {
    let scale = rms_scale(input, epsilon);
    for ((output, input), weight) in output.iter_mut().zip(input).zip(weight) {
        *output = input * scale * weight;
    }
}

/// [`rms_norm`] of each head of `heads`, in its place; `weight` is as long as one head.
pub(in crate::model) fn rms_norm_heads(heads: &mut [f32], weight: &[f32], epsilon: f32) {
    for head in heads.chunks_exact_mut(weight.len()) {
        let scale = rms_scale(head, epsilon);
        for (value, weight) in head.iter_mut().zip(weight) {
            *value *= scale * weight;
        }
    }
}

fn rms_scale(input: &[f32], epsilon: f32) -> f32 {
    let mean_square = dot(input, input) / input.len() as f32;
    1.0 / (mean_square + epsilon).sqrt()
}

/// silu(gate) · up, the middle of SwiGLU (Shazeer 2020, arXiv:2002.05202); silu(x) = x / (1 + e⁻ˣ).
pub(in crate::model) fn silu_multiply(gate: &[f32], up: &[f32], output: &mut [f32]) {
    for ((output, gate), up) in output.iter_mut().zip(gate).zip(up) {
        *output = gate / (1.0 + exp(-gate)) * up;
    }
}

/// eˣ within 2 units in the last place, without a library call, so that loops over it vectorise. Results below
/// the smallest normal number become that number.
///
/// Cody–Waite reduction x = n·ln 2 + r with |r| ≤ ln 2 / 2, the Cephes polynomial for eʳ, and n put into the exponent.
#[inline(always)]
pub(in crate::model) fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let rounded = fused(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fused(n, -0.693_359_4, x);
    let r = fused(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fused(p, r, coefficient);
    }
    let e_to_r = fused(p * r, r, r) + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    e_to_r * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(relative < 3e-7, "exp({x}) is off by {relative:e}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn dot_covers_every_length() {
        for length in 0..100 {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let b = vec![2.0; length];
            assert_eq!(dot(&a, &b), (length * length.saturating_sub(1)) as f32);
        }
    }

    #[test]
    fn rms_norm_gives_unit_mean_square() {
        let input: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let mut output = vec![0.0; 64];
        rms_norm(&input, &[1.0; 64], 0.0, &mut output);
        assert!((dot(&output, &output) / 64.0 - 1.0).abs() < 1e-5);
    }

    #[test]
    fn each_head_is_normalised_by_itself() {
        let input: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin() * (1 + i / 16) as f32).collect();
        let weight: Vec<f32> = (0..16).map(|i| 1.0 + i as f32 * 0.1).collect();
        let mut heads = input.clone();
        rms_norm_heads(&mut heads, &weight, 1e-6);
        for (head, input) in heads.chunks(16).zip(input.chunks(16)) {
            let mut alone = vec![0.0; 16];
            rms_norm(input, &weight, 1e-6, &mut alone);
            assert!(head.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
