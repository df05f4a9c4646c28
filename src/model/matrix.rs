//! A weight matrix in the precision it is held in, and its products.

use candle_core::quantized::GgmlType;
use candle_core::quantized::k_quants::BlockQ8_0;

use super::error::ModelError;
use super::options::Precision;
use super::parallel::Parallel;

/// A matrix of shape [rows, columns], one row per output, as Hugging Face stores them.
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    weights: Weights,
}

enum Weights {
    F32(Vec<f32>),
    Q8_0(Vec<BlockQ8_0>),
}

/// Buffers that products reuse.
#[derive(Default)]
pub(super) struct ProductScratch {
    quantised: Vec<BlockQ8_0>,
    transposed: Vec<f32>,
}

impl Matrix {
    /// Takes row-major `values`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] when rows cannot be cut into the precision's blocks.
    pub(super) fn new(precision: Precision, rows: usize, columns: usize, values: Vec<f32>) -> Result<Self, ModelError> {
        let weights = match precision {
            Precision::F32 => Weights::F32(values),
            Precision::Q8_0 if columns.is_multiple_of(BlockQ8_0::BLCK_SIZE) => Weights::Q8_0(quantise(&values)),
            Precision::Q8_0 => {
                return Err(ModelError::Unsupported(format!(
                    "rows of {columns} weights do not fit Q8_0's blocks of 32"
                )));
            }
        };
        Ok(Self { rows, columns, weights })
    }

    /// Copies row `index` out.
    pub(super) fn copy_row(&self, index: usize, output: &mut [f32]) {
        match &self.weights {
            Weights::F32(values) => output.copy_from_slice(row(values, index, self.columns)),
            Weights::Q8_0(blocks) => BlockQ8_0::to_float(row(blocks, index, self.columns), output),
        }
    }

    /// `outputs` [n, rows] = `inputs` [n, columns] · selfᵀ. The n inputs share one read of the weights, and each
    /// output is the same whatever n and the thread count are.
    pub(super) fn multiply(
        &self,
        inputs: &[f32],
        outputs: &mut [f32],
        scratch: &mut ProductScratch,
        parallel: Parallel,
    ) {
        debug_assert_eq!(outputs.len() * self.columns, inputs.len() * self.rows);
        let ProductScratch { quantised, transposed } = scratch;
        match &self.weights {
            Weights::F32(values) => products(values, inputs, self.columns, outputs, transposed, parallel),
            Weights::Q8_0(blocks) => {
                quantised.resize(inputs.len() / BlockQ8_0::BLCK_SIZE, BlockQ8_0::zeros());
                BlockQ8_0::from_float(inputs, quantised);
                products(blocks, quantised, self.columns, outputs, transposed, parallel);
            }
        }
    }
}

fn quantise(values: &[f32]) -> Vec<BlockQ8_0> {
    let mut blocks = vec![BlockQ8_0::zeros(); values.len() / BlockQ8_0::BLCK_SIZE];
    BlockQ8_0::from_float(values, &mut blocks);
    blocks
}

fn row<T: GgmlType>(weights: &[T], index: usize, columns: usize) -> &[T] {
    let blocks = columns / T::BLCK_SIZE;
    &weights[index * blocks..][..blocks]
}

fn products<T: GgmlType>(
    weights: &[T],
    inputs: &[T::VecDotType],
    columns: usize,
    outputs: &mut [f32],
    transposed: &mut Vec<f32>,
    parallel: Parallel,
) {
    let blocks = columns / T::BLCK_SIZE;
    let count = inputs.len() / blocks;
    let fill = |first: usize, outputs: &mut [f32]| {
        for (offset, outputs) in outputs.chunks_exact_mut(count).enumerate() {
            let weights = row(weights, first + offset, columns);
            for (output, input) in outputs.iter_mut().zip(inputs.chunks_exact(blocks)) {
                *output = T::vec_dot(columns, weights, input);
            }
        }
    };
    if count == 1 {
        return parallel.units(outputs, 1, fill);
    }
    // One weight row gives one output of each input: [rows, n] is what threads can fill side by side.
    transposed.resize(outputs.len(), 0.0);
    parallel.units(transposed, count, fill);
    let rows = outputs.len() / count;
    for (index, outputs) in outputs.chunks_exact_mut(rows).enumerate() {
        for (output, column) in outputs.iter_mut().zip(transposed.chunks_exact(count)) {
            *output = column[index];
        }
    }
}
