//! What the kernels compute is what the model is.

use super::{Rig, reference, relative_error, scattered, shapes};
use crate::model::backend::{Feed, Outcome, Then};
use crate::model::cuda::weights::Weights;

/// Rounding of keys, values and, in passes of more than 8 rows, activations to bfloat16.
const ERROR: f64 = 1e-2;
/// With activations in 16 bits of precision: a key or value may fall on the other side of a rounding than the
/// reference's.
const NARROW_ERROR: f64 = 1e-3;

fn contexts_are_read_right(weights: &Weights, lengths: &[usize]) {
    let tokens = shapes::tokens(*lengths.iter().max().unwrap(), 1, &weights.config);
    let wanted = reference::logits(weights, &tokens);
    for length in lengths {
        let mut rig = Rig::new(weights, false);
        let pages = scattered(0, *length, 1);
        let error = relative_error(&rig.logits(&pages, 0, &tokens[..*length]), &wanted[length - 1]);
        assert!(error < ERROR, "{length} tokens: {error}");
    }
}

#[test]
fn llama_reads_contexts_in_one_pass_or_several() {
    contexts_are_read_right(&shapes::tiny_llama(), &[1, 2, 15, 16, 17, 33, 64, 65, 150]);
}

#[test]
fn qwen2_with_its_biases_reads_contexts() {
    contexts_are_read_right(&shapes::tiny_qwen2(), &[1, 17, 40]);
}

#[test]
fn qwen3_with_its_norms_reads_contexts() {
    contexts_are_read_right(&shapes::tiny_qwen3(), &[1, 17, 40, 70]);
}

#[test]
fn a_context_that_grows_by_single_tokens_is_as_exact_as_its_cache() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen2(), shapes::tiny_qwen3()] {
        let tokens = shapes::tokens(36, 2, &weights.config);
        let wanted = reference::logits_of_rounded_cache(&weights, &tokens);
        let (mut rig, pages) = (Rig::new(&weights, false), scattered(0, tokens.len(), 1));
        for (position, wanted) in wanted.iter().enumerate() {
            let error = relative_error(&rig.logits(&pages, position, &tokens[position..][..1]), wanted);
            assert!(error < NARROW_ERROR, "position {position}: {error}");
        }
    }
}

#[test]
fn sequences_of_a_pass_do_not_see_each_other() {
    for (weights, sequences) in [(shapes::tiny_llama(), 12), (shapes::tiny_qwen3(), 3), (shapes::tiny_qwen2(), 20)] {
        let contexts: Vec<_> =
            (0..sequences).map(|i| shapes::tokens(3 + 2 * i, 10 + i as u64, &weights.config)).collect();
        let pages: Vec<_> =
            contexts.iter().enumerate().map(|(i, tokens)| scattered(i, tokens.len(), sequences)).collect();
        let feeds: Vec<_> = contexts
            .iter()
            .zip(&pages)
            .map(|(tokens, pages)| Feed { pages, start: 0, tokens, then: Then::Logits })
            .collect();
        for (outcome, tokens) in Rig::new(&weights, false).step(&feeds).iter().zip(&contexts) {
            let Outcome::Logits(logits) = outcome else { panic!("no logits") };
            let error = relative_error(logits, reference::logits(&weights, tokens).last().unwrap());
            assert!(error < ERROR, "{} tokens: {error}", tokens.len());
        }
    }
}

#[test]
fn the_order_of_threads_and_blocks_changes_nothing() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen3()] {
        let tokens = shapes::tokens(70, 4, &weights.config);
        let pages = scattered(0, tokens.len(), 1);
        let [forwards, backwards] = [false, true].map(|reverse| {
            let mut rig = Rig::new(&weights, reverse);
            let read = rig.logits(&pages, 0, &tokens[..69]);
            [read, rig.logits(&pages, 69, &tokens[69..])]
        });
        assert_eq!(forwards, backwards);
    }
}
