//! What the loops that take most of the time are written in, for the registers that the whole program is compiled for and
//! for wider ones, where the processor has them.

use wide::{f32x8, i8x16, i16x8, i16x16, i32x8};

use super::quantised::{Inputs, Weights};

/// Floats that are computed side by side.
pub(in crate::model) const LANES: usize = 16;

/// Blocks and scales of a quantised row.
pub(in crate::model) type Row<'a> = (&'a [Weights], &'a [f32]);

/// Registers and what is done in them.
pub(in crate::model) trait Registers: Copy {
    /// Whether there are 32 and not 16 of them, each as wide as all [`LANES`].
    const WIDE: bool;

    /// [`LANES`] floats.
    type Lanes: Copy;

    fn splat(self, value: f32) -> Self::Lanes;

    fn floats(self, values: &[f32; LANES]) -> Self::Lanes;

    fn integers(self, values: &[i16; LANES]) -> Self::Lanes;

    /// a · b + c, rounded once.
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;

    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES];

    /// A row times each of `inputs`, which have as many blocks, but for the scales of the inputs. Each product is added up
    /// in the same order, whatever the others are.
    fn dot<const N: usize>(self, row: Row<'_>, inputs: [&[Inputs]; N]) -> [f32; N];
}

/// What needs registers.
pub(in crate::model) trait Work {
    /// To be inlined, with all that it calls, so that it is compiled for the registers.
    fn run(self, registers: impl Registers);
}

/// Does `work` with the widest registers that the processor has.
pub(in crate::model) fn with_widest(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if let Some(registers) = super::avx512::Avx512::detect() {
        return registers.run(work);
    }
    work.run(Compiled);
}

/// The registers that the whole program is compiled for.
#[derive(Clone, Copy)]
pub(in crate::model) struct Compiled;

impl Registers for Compiled {
    const WIDE: bool = false;

    type Lanes = [f32x8; 2];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Lanes {
        [f32x8::splat(value); 2]
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> Self::Lanes {
        let (halves, _) = values.as_chunks();
        [f32x8::new(halves[0]), f32x8::new(halves[1])]
    }

    #[inline(always)]
    fn integers(self, values: &[i16; LANES]) -> Self::Lanes {
        let (halves, _) = values.as_chunks();
        [halves[0], halves[1]].map(|half| f32x8::from_i32x8(i32x8::from_i16x8(i16x8::new(half))))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        [a[0].mul_add(b[0], c[0]), a[1].mul_add(b[1], c[1])]
    }

    #[inline(always)]
    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        let halves = array.as_chunks_mut().0.iter_mut();
        halves.zip(lanes).for_each(|(half, lanes)| *half = lanes.to_array());
        array
    }

    #[inline(always)]
    fn dot<const N: usize>(self, (weights, scales): Row<'_>, inputs: [&[Inputs]; N]) -> [f32; N] {
        let blocks = weights.len();
        let scales = &scales[..blocks];
        let inputs = inputs.map(|input| &input[..blocks]);
        let mut sums = [f32x8::ZERO; N];
        for block in 0..blocks {
            let (halves, _) = weights[block].0.as_chunks();
            let [first, second] = [halves[0], halves[1]].map(|half| i16x16::from_i8x16(i8x16::new(half)));
            let scale = f32x8::splat(scales[block]);
            for (sum, input) in sums.iter_mut().zip(inputs) {
                // At most 4 · 127 · 32767 in each lane, which a float holds exactly.
                let products: i32x8 = first.dot(input[block].0[0]) + second.dot(input[block].0[1]);
                *sum = f32x8::from_i32x8(products).mul_add(scale, *sum);
            }
        }
        sums.map(f32x8::reduce_add)
    }
}
