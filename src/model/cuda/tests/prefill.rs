//! Long passes, with products by a library that is the host's here, compute what the model is.

use std::sync::Arc;

use super::emulated::{Emulated, FakeProducts};
use super::{Rig, SMALL, reference, relative_error, scattered, shapes};
use crate::model::backend::{Backend as _, Feed, Outcome, PageId, Then};
use crate::model::cuda::device::{Address, Device as _, Multiply, MultiplyShape, Plus};
use crate::model::cuda::engine::Engine;
use crate::model::cuda::library::Library;
use crate::model::cuda::weights::Weights;
use crate::model::sample::DraftSampling;
use crate::speculation::TokenId;

const ERROR: f64 = 1e-2;

fn nothing<'a>(pages: &'a [PageId], start: usize, tokens: &'a [TokenId]) -> Feed<'a> {
    Feed { pages, start, tokens, then: Then::Nothing }
}

/// Reads all but the last token as `cuts` say, then compares the logits after the last.
fn reads(weights: &Weights, length: usize, cuts: &[usize], reverse: bool, multiplied: &[usize]) {
    let tokens = shapes::tokens(length, 1, &weights.config);
    let pages = scattered(0, length, 1);
    let mut rig = Rig::with_library(weights, reverse);
    let mut start = 0;
    for end in cuts {
        rig.step(&[nothing(&pages, start, &tokens[start..*end])]);
        start = *end;
    }
    let found = rig.logits(&pages, start, &tokens[start..]);
    let mut rows = rig.engine.device().multiplied.clone();
    rows.dedup();
    assert_eq!(rows, multiplied, "{length} tokens");
    let error = relative_error(&found, reference::logits(weights, &tokens).last().unwrap());
    assert!(error < ERROR, "{length} tokens, {cuts:?}: {error}");
}

#[test]
fn contexts_are_read_in_long_passes_and_what_is_left_in_short_ones() {
    let weights = shapes::tiny_llama();
    reads(&weights, 65, &[], false, &[]);
    reads(&weights, 66, &[], false, &[128]);
    reads(&weights, 129, &[], false, &[128]);
    reads(&weights, 130, &[], false, &[192]);
    reads(&weights, 513, &[], false, &[512]);
    // 512, then 64 by the other kernels.
    reads(&weights, 577, &[], false, &[512]);
    reads(&weights, 700, &[], false, &[512, 192]);
}

#[test]
fn a_long_pass_begins_anywhere_in_a_page_after_any_pass() {
    let weights = shapes::tiny_llama();
    reads(&weights, 230, &[1, 90, 97], true, &[128, 192]);
    reads(&weights, 300, &[100, 116, 299], false, &[128, 192]);
}

#[test]
fn qwen2_with_its_biases_and_seven_heads_to_a_key_head() {
    reads(&shapes::tiny_qwen2(), 130, &[], false, &[192]);
    reads(&shapes::tiny_qwen2(), 100, &[], true, &[128]);
}

#[test]
fn qwen3_with_its_norms_and_wide_heads() {
    reads(&shapes::tiny_qwen3(), 150, &[], false, &[192]);
    reads(&shapes::tiny_qwen3(), 100, &[17], true, &[128]);
}

#[test]
fn sequences_of_a_long_pass_do_not_see_each_other_and_drafts_follow() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen3()] {
        let lengths = [3, 40, 90, 17];
        let contexts: Vec<_> = lengths.iter().map(|n| shapes::tokens(*n, *n as u64, &weights.config)).collect();
        let pages: Vec<_> = lengths.iter().enumerate().map(|(i, n)| scattered(i, n + 4, lengths.len())).collect();
        let mut rig = Rig::with_library(&weights, false);
        let greedy = DraftSampling::new(3, 0.0);
        let then = Then::Draft { sampling: &greedy, at_most: 3 };
        let feeds: Vec<_> =
            contexts.iter().zip(&pages).map(|(tokens, pages)| Feed { pages, start: 0, tokens, then }).collect();
        let outcomes = rig.step(&feeds);
        // 146 tokens: all but each sequence's last.
        assert!(rig.engine.device().multiplied.iter().all(|rows| *rows == 192));
        assert_eq!(rig.engine.device().multiplied.len(), 4 * weights.config.layers);
        for (outcome, tokens) in outcomes.iter().zip(&contexts) {
            let Outcome::Drafts(drafts) = outcome else { panic!("no drafts") };
            let mut context = tokens.clone();
            assert_eq!(drafts.len(), 3);
            for draft in drafts {
                let logits = reference::logits(&weights, &context).pop().unwrap();
                let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let spread = logits.iter().map(|logit| logit.abs()).fold(0.0, f64::max);
                assert!(best - logits[draft.token as usize] < 2e-2 * spread);
                context.push(draft.token);
            }
        }
    }
}

#[test]
fn more_sequences_than_a_pass_has_are_read_in_several() {
    let weights = shapes::tiny_llama();
    let contexts: Vec<_> = (0..70).map(|i| shapes::tokens(2 + i % 3, i as u64, &weights.config)).collect();
    let pages: Vec<[PageId; 1]> = (0..70).map(|i| [i]).collect();
    let mut rig = Rig::with_library(&weights, false);
    let feeds: Vec<_> = contexts.iter().zip(&pages).map(|(tokens, pages)| nothing(pages, 0, tokens)).collect();
    rig.step(&feeds);
    // 64 sequences with 191 tokens; the others are few enough for a short pass.
    assert_eq!(rig.engine.device().multiplied.len(), 4 * weights.config.layers);
    assert!(rig.engine.device().multiplied.iter().all(|rows| *rows == 192));
    for i in [6, 30, 63, 64, 69] {
        let (held, last) = contexts[i].split_at(contexts[i].len() - 1);
        let found = rig.logits(&pages[i], held.len(), last);
        let error = relative_error(&found, reference::logits(&weights, &contexts[i]).last().unwrap());
        assert!(error < ERROR, "sequence {i}: {error}");
    }
}

#[test]
fn without_a_library_or_with_one_that_refuses_passes_are_short() {
    let weights = shapes::tiny_llama();
    let fake = FakeProducts::load();
    assert_eq!(Rig::new(&weights, false).engine.rows_at_once(), 64);
    assert_eq!(Rig::with_library(&weights, false).engine.rows_at_once(), 512);
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    fake.refuse(true);
    let mut rig = tracing::subscriber::with_default(subscriber, || Rig::with_library(&weights, false));
    fake.refuse(false);
    let said = std::fs::read_to_string(log.path()).unwrap();
    assert!(said.contains("WARN") && said.contains("64 tokens at a time") && said.contains("NOT_SUPPORTED"), "{said}");
    assert_eq!(rig.engine.rows_at_once(), 64);
    let tokens = shapes::tokens(150, 1, &weights.config);
    let found = rig.logits(&scattered(0, 150, 1), 0, &tokens);
    assert!(rig.engine.device().multiplied.is_empty());
    assert!(relative_error(&found, reference::logits(&weights, &tokens).last().unwrap()) < ERROR);
}

#[test]
fn a_product_is_what_it_is_described_as_and_nothing_is_left_of_it() {
    let fake = FakeProducts::load();
    let before = fake.live();
    let weights = shapes::tiny_llama();
    let mut device = Emulated::with_library(SMALL, Engine::<Emulated>::shape(&weights), false);
    let (rows, width, depth) = (64, 24, 32);
    let halves = |count: usize| -> Vec<u16> { (0..count).map(|i| 0x3f80 + (i * 7 % 128) as u16).collect() };
    let floats = |count: usize| -> Vec<f32> { (0..count).map(|i| (i % 11) as f32).collect() };
    let (matrix, input, held) = (halves(width * depth), halves(rows * depth), floats(rows * width));
    let mut place = |bytes: Vec<u8>| {
        let place = device.allocate(bytes.len()).unwrap();
        device.upload(place, &bytes).unwrap();
        place
    };
    let words = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let singles = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let (weights, from, bias) = (place(words(&matrix)), place(words(&input)), place(singles(&floats(width))));
    let output: Address = place(singles(&held));
    for plus in [Plus::Output, Plus::Nothing, Plus::Bias] {
        let shape = MultiplyShape { rows, width, depth, plus };
        device.prepare(&[shape]).unwrap();
        device.upload(output, &singles(&held)).unwrap();
        device.multiply(&Multiply { shape, weights, input: from, bias, output }).unwrap();
        let mut bytes = vec![0; held.len() * 4];
        device.download(output, &mut bytes).unwrap();
        for (index, found) in bytes.chunks(4).enumerate() {
            let (row, column) = (index / width, index % width);
            let product: f32 = (0..depth)
                .map(|k| shapes::widen(matrix[column * depth + k]) * shapes::widen(input[row * depth + k]))
                .sum();
            let more = match plus {
                Plus::Nothing => 0.0,
                Plus::Bias => (column % 11) as f32,
                Plus::Output => held[index],
            };
            let found = f32::from_le_bytes(found.try_into().unwrap());
            assert!((found - product - more).abs() < 1e-4 * product, "{plus:?}: {found} for {product} + {more}");
        }
    }
    let unprepared = MultiplyShape { rows: 128, width, depth, plus: Plus::Nothing };
    let product = Multiply { shape: unprepared, weights, input: from, bias, output };
    assert!(device.multiply(&product).is_err());
    // Columns that are no multiple of what tensor cores read.
    assert!(Library::open().unwrap().prepare(MultiplyShape { depth: 30, ..unprepared }).is_err());
    drop(device);
    assert_eq!(fake.live(), before);
}
