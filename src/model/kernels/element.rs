//! What keys and values are held in: 32-bit floats, or 16-bit integers with a factor for each vector of them.

use super::quantised::{scales, to_integer};
use super::registers::{LANES, Registers};

/// A part of a key or a value.
pub(in crate::model) trait Element: Copy + Default + Send + Sync {
    /// Writes `values`; returns the factor that what was written has to be multiplied with.
    fn write<'e>(values: &[f32], places: impl Iterator<Item = &'e mut Self>) -> f32
    where
        Self: 'e;

    /// But for the factor.
    fn value(self) -> f32;

    /// The same, side by side.
    fn lanes<R: Registers>(registers: R, elements: &[Self; LANES]) -> R::Lanes;
}

impl Element for f32 {
    fn write<'e>(values: &[f32], places: impl Iterator<Item = &'e mut Self>) -> f32 {
        places.zip(values).for_each(|(place, value)| *place = *value);
        1.0
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn lanes<R: Registers>(registers: R, elements: &[Self; LANES]) -> R::Lanes {
        registers.floats(elements)
    }
}

/// Fractions of the largest magnitude, which becomes ±32767. A NaN or an infinity makes the factor no finite number.
impl Element for i16 {
    fn write<'e>(values: &[f32], places: impl Iterator<Item = &'e mut Self>) -> f32 {
        let (inverse, factor) = scales(values);
        places.zip(values).for_each(|(place, value)| *place = to_integer(value * inverse));
        factor
    }

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    fn lanes<R: Registers>(registers: R, elements: &[Self; LANES]) -> R::Lanes {
        registers.integers(elements)
    }
}
