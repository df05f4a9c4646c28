//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in Hugging Face's half-split order: element i
//! of a head is rotated with element i + head_dim / 2.

/// How a model stretches its rotations to longer contexts than it was first trained on.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::model) enum RopeScaling {
    None,
    /// Every frequency divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, those between blended.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original_positions: f64,
    },
}

/// Radians per position of each of the head_dim / 2 pairs: θ^(−2i/d), scaled.
pub(in crate::model) fn inverse_frequencies(head_dim: usize, theta: f64, scaling: &RopeScaling) -> Vec<f32> {
    let frequency = |pair: usize| theta.powf(-2.0 * pair as f64 / head_dim as f64);
    (0..head_dim / 2).map(|pair| scaling.apply(frequency(pair)) as f32).collect()
}

impl RopeScaling {
    /// transformers' `_compute_llama3_parameters` for the third kind.
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original_positions } => {
                let turns = original_positions * frequency / std::f64::consts::TAU;
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// Fills cos and sin of `position` for each pair.
pub(in crate::model) fn angles(position: usize, inverse_frequencies: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(inverse_frequencies) {
        (*sin, *cos) = (position as f32 * frequency).sin_cos();
    }
}

/// Rotates every head in `heads`, whose length is a multiple of 2 · `cos.len()`.
pub(in crate::model) fn rotate(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in heads.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for (((x, y), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_depends_on_the_distance_alone() {
        let frequencies = inverse_frequencies(16, 10_000.0, &RopeScaling::None);
        let at = |values: &[f32], position| {
            let (mut cos, mut sin) = (vec![0.0; 8], vec![0.0; 8]);
            angles(position, &frequencies, &mut cos, &mut sin);
            let mut values = values.to_vec();
            rotate(&mut values, &cos, &sin);
            values
        };
        let q: Vec<f32> = (0..16).map(|i| (i as f32).sin()).collect();
        let k: Vec<f32> = (0..16).map(|i| (i as f32 * 1.3).cos()).collect();
        let product = |a, b| super::super::ops::dot(&at(&q, a), &at(&k, b));
        assert!((product(7, 3) - product(104, 100)).abs() < 1e-4);
        assert!((product(7, 3) - product(8, 3)).abs() > 1e-3);
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let plain = inverse_frequencies(128, 500_000.0, &RopeScaling::None);
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_positions: 8192.0 };
        let scaled = inverse_frequencies(128, 500_000.0, &scaling);
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / scaled[63] - 8.0).abs() < 1e-4);
        assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
