//! Arithmetic in safe Rust, written so that it vectorises: plain loops over slices, and what takes most of the time in
//! [`registers`].

pub(super) mod attention;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod element;
pub(super) mod ops;
pub(super) mod quantised;
pub(super) mod registers;
pub(super) mod rope;
