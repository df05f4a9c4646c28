//! What the fake vLLM promises to the tests that use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;
