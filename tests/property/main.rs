//! What holds for every input, tried on random ones: the mathematics of acceptance in closed form, the target of a row
//! against the whole vocabulary, text against a naive reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod brute_force;
mod class_rule;
mod decisions;
mod fuzz_seeds;
mod generate;
mod history;
mod match_rule;
mod ngram;
mod output;
mod residual;
mod sequence;
mod stop_strings;
mod suffix_index;
mod target;
mod token_rule;
