//! Against a real vLLM with a real model, which `tests/target/target.py` starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, dead_code)]
#![allow(unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod architectures;
mod clients;
mod disconnect;
mod draft_trouble;
mod exactness;
mod greedy;
mod logits;
mod outage;
mod own_server;
mod policies;
mod prompts;
mod replay;
mod sampled;
mod server;
mod text;
mod weights;
