//! Arithmetic on plain `f32` slices, in safe Rust written so that LLVM vectorises it.

pub(super) mod attention;
pub(super) mod ops;
pub(super) mod quantised;
pub(super) mod rope;
