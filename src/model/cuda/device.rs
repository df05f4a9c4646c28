//! What the backend needs of a GPU: memory, kernels, recorded sequences of launches. A launch is plain data, so what is
//! launched can be decided, and tested, without one.

use std::ffi::c_void;

use super::geometry::Machine;
use super::source::Kernel;
use crate::model::error::ModelError;

/// A place in the device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(super) struct Address(pub(super) u64);

impl Address {
    pub(super) const NULL: Self = Self(0);

    pub(super) fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// `Rows` of `kernels/heads.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Rows {
    pub(super) tables: Address,
    pub(super) table_starts: Address,
    pub(super) held: Address,
    pub(super) sequences: Address,
    pub(super) positions: Address,
    pub(super) step: i32,
}

/// `Runs` of `kernels/attention.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Runs {
    pub(super) first: Address,
    pub(super) count: Address,
}

/// A kernel's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    Address(Address),
    Int(i32),
    Rows(Rows),
    Runs(Runs),
}

impl Argument {
    /// Where its bytes are, as a launch wants to know; valid as long as the argument stays in place.
    pub(super) fn bytes(&self) -> *mut c_void {
        let place: *const c_void = match self {
            Self::Address(value) => std::ptr::from_ref(value).cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast(),
            Self::Rows(value) => std::ptr::from_ref(value).cast(),
            Self::Runs(value) => std::ptr::from_ref(value).cast(),
        };
        place.cast_mut()
    }
}

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<usize> for Argument {
    /// Counts that kernels take are below 2³¹.
    fn from(count: usize) -> Self {
        Self::Int(count as i32)
    }
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) kernel: Kernel,
    pub(super) grid: [usize; 3],
    pub(super) threads: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
    /// In the order of the kernel's parameters.
    pub(super) arguments: Vec<Argument>,
    /// What it writes that the next kernel reads: (place, bytes). The kernel after this one may start early, and must
    /// not look there before it has waited.
    pub(super) writes: Vec<(Address, usize)>,
}

/// What a product gives besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Plus {
    Nothing,
    /// A vector of float32, to each row.
    Bias,
    /// What the output held.
    Output,
}

/// A kind of product: output [rows, width] in float32 = input [rows, depth] · weightsᵀ, both in bfloat16, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MultiplyShape {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) depth: usize,
    pub(super) plus: Plus,
}

/// A product that a library does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Multiply {
    pub(super) shape: MultiplyShape,
    pub(super) weights: Address,
    pub(super) input: Address,
    /// Only with [`Plus::Bias`].
    pub(super) bias: Address,
    pub(super) output: Address,
}

/// A part of a long pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Kernels(Vec<Launch>),
    Product(Multiply),
}

/// A GPU with one queue of work. All but [`Self::download`] may return before the work is done.
pub(super) trait Device: Send {
    /// A recorded sequence of launches.
    type Graph: Send;

    fn machine(&self) -> Machine;
    /// Bytes that are free.
    fn free(&self) -> Result<usize, ModelError>;
    /// Memory that is zero, aligned to 256 bytes, and kept until the device is dropped.
    fn allocate(&mut self, bytes: usize) -> Result<Address, ModelError>;
    /// Copies `bytes`, of which it keeps no reference.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), ModelError>;
    /// Waits for all work before and copies.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), ModelError>;
    /// Makes ready to do products of these shapes by a library.
    ///
    /// # Errors
    /// [`ModelError::Cuda`] where there is no library, or none that does them all.
    fn prepare(&mut self, shapes: &[MultiplyShape]) -> Result<(), ModelError>;
    /// Does a product of a shape that was prepared, after all work before.
    fn multiply(&mut self, product: &Multiply) -> Result<(), ModelError>;
    /// Runs launches one after another.
    fn run(&mut self, launches: &[Launch]) -> Result<(), ModelError>;
    /// Prepares launches to be run as one.
    fn record(&mut self, launches: Vec<Launch>) -> Result<Self::Graph, ModelError>;
    fn replay(&mut self, graph: &Self::Graph) -> Result<(), ModelError>;
}
