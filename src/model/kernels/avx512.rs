//! Registers of 512 bits, for processors that have them: half of the instructions. The `pulp` crate asks the processor,
//! and holds what is unsafe about that.

use pulp::x86::V4;
use pulp::{NullaryFnOnce, Simd, cast, f32x16, i8x32, i16x16, i16x32};

use super::quantised::{BLOCK, Inputs};
use super::registers::{LANES, Registers, Row, Work};

/// Proof that the processor has them.
#[derive(Clone, Copy)]
pub(in crate::model) struct Avx512(V4);

impl Avx512 {
    /// None where the processor lacks them.
    pub(in crate::model) fn detect() -> Option<Self> {
        V4::try_new().map(Self)
    }

    /// Does `work`, compiled for these registers.
    pub(in crate::model) fn run(self, work: impl Work) {
        self.0.vectorize(Compiled { registers: self, work });
    }
}

struct Compiled<W> {
    registers: Avx512,
    work: W,
}

impl<W: Work> NullaryFnOnce for Compiled<W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.work.run(self.registers);
    }
}

impl Registers for Avx512 {
    const WIDE: bool = true;

    type Lanes = f32x16;

    #[inline(always)]
    fn splat(self, value: f32) -> f32x16 {
        self.0.splat_f32x16(value)
    }

    #[inline(always)]
    fn floats(self, values: &[f32; LANES]) -> f32x16 {
        cast(*values)
    }

    #[inline(always)]
    fn integers(self, values: &[i16; LANES]) -> f32x16 {
        let integers = self.0.convert_i16x16_to_i32x16(cast::<[i16; LANES], i16x16>(*values));
        self.0.convert_i32x16_to_f32x16(integers)
    }

    #[inline(always)]
    fn mul_add(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        self.0.mul_add_f32x16(a, b, c)
    }

    #[inline(always)]
    fn to_array(self, lanes: f32x16) -> [f32; LANES] {
        cast(lanes)
    }

    #[inline(always)]
    fn dot<const N: usize>(self, (weights, scales): Row<'_>, inputs: [&[Inputs]; N]) -> [f32; N] {
        let (simd, blocks) = (self.0, weights.len());
        let scales = &scales[..blocks];
        let inputs = inputs.map(|input| &input[..blocks]);
        let mut sums = [self.splat(0.0); N];
        for block in 0..blocks {
            let row: i16x32 = simd.convert_i8x32_to_i16x32(cast::<[i8; BLOCK], i8x32>(weights[block].0));
            let scale = self.splat(scales[block]);
            for (sum, input) in sums.iter_mut().zip(inputs) {
                // At most 2 · 127 · 32767 in each lane, which a float holds exactly.
                let products =
                    simd.multiply_wrapping_add_adjacent_i16x32(row, cast::<[wide::i16x16; 2], i16x32>(input[block].0));
                *sum = self.mul_add(simd.convert_i32x16_to_f32x16(products), scale, *sum);
            }
        }
        let mut totals = [0.0; N];
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = simd.reduce_sum_f32s(sum);
        }
        totals
    }
}
