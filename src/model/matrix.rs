//! A weight matrix in the precision it is held in, and its products.

use super::error::ModelError;
use super::kernels::registers::{Registers, Row, Work, with_widest};
use super::kernels::{ops, quantised};
use super::options::Precision;
use super::parallel::Parallel;

/// Inputs that a matrix is multiplied with before it is read again: they stay in the first-level cache.
const TILE: usize = 16;

/// A matrix of shape [rows, columns], one row per output, as Hugging Face stores them.
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    weights: Weights,
}

enum Weights {
    F32(Vec<f32>),
    Q8_0(Blocks),
}

/// Buffers that products reuse.
#[derive(Default)]
pub(super) struct Buffers {
    /// [rows, n].
    transposed: Vec<f32>,
    /// Inputs in 16 bits, [n, blocks].
    rounded: Vec<quantised::Inputs>,
    /// Their scales, [n].
    scales: Vec<f32>,
}

/// 8-bit weights: [rows, per_row] blocks, and as many scales.
struct Blocks {
    per_row: usize,
    weights: Vec<quantised::Weights>,
    scales: Vec<f32>,
}

impl Matrix {
    /// Takes row-major `values`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] when rows cannot be cut into the precision's blocks.
    pub(super) fn new(precision: Precision, rows: usize, columns: usize, values: Vec<f32>) -> Result<Self, ModelError> {
        let weights = match precision {
            Precision::F32 => Weights::F32(values),
            Precision::Q8_0 if columns.is_multiple_of(quantised::BLOCK) => {
                Weights::Q8_0(Blocks::quantise(columns, &values))
            }
            Precision::Q8_0 => {
                let block = quantised::BLOCK;
                return Err(ModelError::Unsupported(format!("rows of {columns} do not fit Q8_0's blocks of {block}")));
            }
        };
        Ok(Self { rows, columns, weights })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(values) => size_of_val(values.as_slice()),
            Weights::Q8_0(Blocks { weights, scales, .. }) => {
                size_of_val(weights.as_slice()) + size_of_val(scales.as_slice())
            }
        }
    }

    /// A copy of the first `count` rows.
    pub(super) fn first_rows(&self, count: usize) -> Self {
        let weights = match &self.weights {
            Weights::F32(values) => Weights::F32(values[..count * self.columns].to_vec()),
            Weights::Q8_0(blocks) => {
                let (weights, scales) = blocks.rows(0, count);
                Weights::Q8_0(Blocks { per_row: blocks.per_row, weights: weights.to_vec(), scales: scales.to_vec() })
            }
        };
        Self { rows: count, columns: self.columns, weights }
    }

    /// Makes row `index`, at most one after the last, a copy of row `row` of `from`, which is of the same precision
    /// and width.
    pub(super) fn set_row(&mut self, index: usize, from: &Self, row: usize) {
        match (&mut self.weights, &from.weights) {
            (Weights::F32(values), Weights::F32(from)) => {
                set_part(values, index, &from[row * self.columns..][..self.columns]);
            }
            (Weights::Q8_0(blocks), Weights::Q8_0(from)) => {
                let (weights, scales) = from.rows(row, 1);
                set_part(&mut blocks.weights, index, weights);
                set_part(&mut blocks.scales, index, scales);
            }
            _ => debug_assert!(false, "another precision"),
        }
        self.rows = self.rows.max(index + 1);
    }

    /// Copies row `index` out.
    pub(super) fn copy_row(&self, index: usize, output: &mut [f32]) {
        match &self.weights {
            Weights::F32(values) => output.copy_from_slice(&values[index * self.columns..][..self.columns]),
            Weights::Q8_0(blocks) => blocks.copy_row(index, output),
        }
    }

    /// `outputs` [n, rows] = `inputs` [n, columns] · selfᵀ. The n inputs share reads of the weights, and each output is
    /// the same, bit for bit, whatever n and the thread count are.
    pub(super) fn multiply(&self, inputs: &[f32], outputs: &mut [f32], buffers: &mut Buffers, parallel: Parallel) {
        let count = inputs.len() / self.columns;
        debug_assert_eq!(outputs.len(), count * self.rows);
        let Buffers { transposed, rounded, scales } = buffers;
        if let Weights::Q8_0(_) = self.weights {
            rounded.clear();
            scales.clear();
            scales.extend(inputs.chunks_exact(self.columns).map(|input| quantised::round(input, rounded)));
        }
        let fill = |first: usize, outputs: &mut [f32]| match &self.weights {
            Weights::F32(values) => fill_exact(&values[first * self.columns..], inputs, self.columns, outputs),
            Weights::Q8_0(blocks) => {
                with_widest(Fill { blocks, first, inputs: rounded, input_scales: scales, outputs });
            }
        };
        if count == 1 {
            return parallel.units(outputs, 1, fill);
        }
        // One weight row gives one output of each input: [rows, n] is what threads can fill side by side.
        transposed.resize(outputs.len(), 0.0);
        parallel.units(transposed, count, fill);
        for (index, outputs) in outputs.chunks_exact_mut(self.rows).enumerate() {
            for (output, column) in outputs.iter_mut().zip(transposed.chunks_exact(count)) {
                *output = column[index];
            }
        }
    }
}

/// Makes the `index`-th part of `parts`, at most one after the last, a copy of `part`.
fn set_part<T: Copy>(parts: &mut Vec<T>, index: usize, part: &[T]) {
    match parts.get_mut(index * part.len()..(index + 1) * part.len()) {
        Some(place) => place.copy_from_slice(part),
        None => parts.extend_from_slice(part),
    }
}

/// `outputs` [rows, n] from the first rows of `weights` and `inputs` [n, columns].
fn fill_exact(weights: &[f32], inputs: &[f32], columns: usize, outputs: &mut [f32]) {
    let count = inputs.len() / columns;
    for (row, outputs) in weights.chunks_exact(columns).zip(outputs.chunks_exact_mut(count)) {
        for (output, input) in outputs.iter_mut().zip(inputs.chunks_exact(columns)) {
            *output = ops::dot(row, input);
        }
    }
}

impl Blocks {
    fn quantise(columns: usize, values: &[f32]) -> Self {
        let values = values.as_chunks().0;
        let mut weights = vec![quantised::Weights([0; quantised::BLOCK]); values.len()];
        let scales =
            values.iter().zip(&mut weights).map(|(values, block)| quantised::quantise(values, block)).collect();
        Self { per_row: columns / quantised::BLOCK, weights, scales }
    }

    /// Blocks and scales of `count` rows.
    fn rows(&self, first: usize, count: usize) -> (&[quantised::Weights], &[f32]) {
        let place = first * self.per_row..(first + count) * self.per_row;
        (&self.weights[place.clone()], &self.scales[place])
    }

    fn row(&self, index: usize) -> Row<'_> {
        self.rows(index, 1)
    }

    fn copy_row(&self, index: usize, output: &mut [f32]) {
        let (weights, scales) = self.row(index);
        for ((output, weights), scale) in output.as_chunks_mut().0.iter_mut().zip(weights).zip(scales) {
            *output = weights.0.map(|weight| f32::from(weight) * scale);
        }
    }
}

/// `outputs` [some rows, n] from the rows that begin with `first` and n rounded inputs.
struct Fill<'a> {
    blocks: &'a Blocks,
    first: usize,
    inputs: &'a [quantised::Inputs],
    input_scales: &'a [f32],
    outputs: &'a mut [f32],
}

impl Work for Fill<'_> {
    #[inline(always)]
    fn run(self, registers: impl Registers) {
        let (count, per_row) = (self.input_scales.len(), self.blocks.per_row);
        for (tile, scales) in self.input_scales.chunks(TILE).enumerate() {
            let (from, width) = (tile * TILE, scales.len());
            let mut inputs: [&[quantised::Inputs]; TILE] = [&[]; TILE];
            let all = self.inputs[from * per_row..].chunks_exact(per_row);
            inputs.iter_mut().zip(all).for_each(|(place, input)| *place = input);
            let inputs = &inputs[..width];
            for (row, outputs) in self.outputs.chunks_exact_mut(count).enumerate() {
                let outputs = &mut outputs[from..][..width];
                fill_row(registers, self.blocks.row(self.first + row), inputs, outputs);
                outputs.iter_mut().zip(scales).for_each(|(output, scale)| *output *= scale);
            }
        }
    }
}

/// Products of a row with each of `inputs`, as many at once as there are registers for.
#[inline(always)]
fn fill_row<R: Registers>(registers: R, row: Row<'_>, inputs: &[&[quantised::Inputs]], outputs: &mut [f32]) {
    let eight = if R::WIDE { inputs.len() / 8 * 8 } else { 0 };
    let (eights, inputs) = inputs.split_at(eight);
    let (places, outputs) = outputs.split_at_mut(eight);
    for (inputs, outputs) in eights.as_chunks::<8>().0.iter().zip(places.as_chunks_mut().0) {
        *outputs = registers.dot(row, *inputs);
    }
    let (fours, inputs) = inputs.as_chunks::<4>();
    let (places, outputs) = outputs.as_chunks_mut::<4>();
    for (inputs, outputs) in fours.iter().zip(places) {
        *outputs = registers.dot(row, *inputs);
    }
    match (inputs, outputs) {
        ([a], [x]) => [*x] = registers.dot(row, [a]),
        ([a, b], [x, y]) => [*x, *y] = registers.dot(row, [a, b]),
        ([a, b, c], [x, y, z]) => [*x, *y, *z] = registers.dot(row, [a, b, c]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::parallel::Threads;
    use super::*;

    #[test]
    fn any_batch_on_any_threads_gives_the_same_bits_and_nearly_the_exact_sum() {
        let (rows, columns) = (11, 96);
        let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin()).collect::<Vec<_>>();
        let (weights, inputs) = (wave(rows * columns, 0.37), wave(21 * columns, 0.91));
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Q8_0, 0.1)] {
            let matrix = Matrix::new(precision, rows, columns, weights.clone()).unwrap();
            let multiply = |inputs: &[f32], threads| {
                let mut outputs = vec![0.0; inputs.len() / columns * rows];
                let threads = Threads::new(threads).unwrap();
                threads.run(|parallel| matrix.multiply(inputs, &mut outputs, &mut Buffers::default(), parallel));
                outputs
            };
            let alone: Vec<f32> = inputs.chunks(columns).flat_map(|input| multiply(input, 1)).collect();
            for (count, threads) in [(2, 1), (3, 2), (4, 1), (5, 3), (8, 1), (9, 2), (21, 1), (21, 3)] {
                assert_eq!(multiply(&inputs[..count * columns], threads), alone[..count * rows]);
            }
            for (index, output) in alone.iter().enumerate() {
                let (input, row) = (&inputs[index / rows * columns..], &weights[index % rows * columns..][..columns]);
                let exact: f32 = row.iter().zip(input).map(|(a, b)| a * b).sum();
                assert!((output - exact).abs() < tolerance, "{output} is not {exact}");
            }
        }
    }

    #[test]
    fn rows_come_back_out() {
        let values: Vec<f32> = (0..64).map(|i| i as f32 - 20.0).collect();
        let mut row = vec![0.0; 32];
        for (precision, tolerance) in [(Precision::F32, 0.0), (Precision::Q8_0, 43.0 / 254.0 + 1e-4)] {
            Matrix::new(precision, 2, 32, values.clone()).unwrap().copy_row(1, &mut row);
            assert!(row.iter().zip(&values[32..]).all(|(a, b)| (a - b).abs() <= tolerance));
        }
        assert!(matches!(Matrix::new(Precision::Q8_0, 2, 31, values), Err(ModelError::Unsupported(_))));
    }
}
