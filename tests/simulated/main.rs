//! What the sidecar is worth in front of a GPU: a fake server and a draft model take an H100's time, virtually, and
//! closed-loop clients run the same rollouts directly and through the sidecar. `cargo test --test simulated speed --
//! --nocapture --test-threads 1` prints a line of numbers for each case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]
// The table is what a test of speed has to say.
#![allow(clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod draft_engine;
mod drafters;
mod epochs;
mod plain;
mod replay;
mod rig;
mod speed;
mod switching;
