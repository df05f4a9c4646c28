//! The weights of a model as the CPU holds them.

use super::error::ModelError;
use super::matrix::Matrix;
use super::options::Precision;
use super::weights::{self, ModelSource, Parts};

/// A model, laid out for few, large products.
pub(super) type Llama = Parts<Matrix>;

/// One layer of it.
pub(super) type Layer = weights::Layer<Matrix>;

impl Llama {
    /// # Errors
    /// What [`Parts::read`] says.
    pub(super) fn load(source: &ModelSource, precision: Precision) -> Result<Self, ModelError> {
        Self::read(source, |rows, columns, values| Matrix::new(precision, rows, columns, values))
    }

    /// The matrix that turns a hidden state into logits.
    pub(super) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
