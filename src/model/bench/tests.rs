use candle_core::DType;

use super::*;
use crate::model::fixture::{MAX_POSITIONS, PAGE_BYTES, TinyLlama, options};

const PATIENCE: Duration = Duration::from_secs(60);

fn cell(batch: usize, context: usize, length: usize) -> Cell {
    Cell { batch, context, length }
}

/// A bench of a tiny model with `pages` of cache, and that model's folder.
fn bench(options: &ModelOptions, pages: usize, cells: &[Cell], compared: usize) -> (DraftBench, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let source = TinyLlama::random(1).write_folder(folder.path(), DType::BF16, 1);
    (DraftBench::open(&source, options, Some(pages * PAGE_BYTES), cells, compared).unwrap(), folder)
}

#[test]
fn a_cell_is_measured_as_often_as_was_asked_for() {
    let cells = [cell(1, 20, 1), cell(3, 40, 5)];
    let (mut bench, _folder) = bench(&options(), 64, &cells, 0);
    for cell in cells {
        let Measured { micros_per_step, bytes_per_step, share_of_copy, rounds } =
            bench.measure(cell, 4, PATIENCE).unwrap();
        assert_eq!(rounds, 4);
        assert!(micros_per_step > 0.0);
        let held = cell.context as f64 + (cell.length as f64 - 1.0) / 2.0;
        let cache = cell.batch as f64 * held * PAGE_BYTES as f64 / PAGE as f64;
        assert_eq!(bytes_per_step, bench.weight_bytes() + cache);
        let moved = bench.copy_bandwidth() * micros_per_step / 1e6;
        assert!((share_of_copy * moved / bytes_per_step - 1.0).abs() < 1e-9);
    }
}

#[test]
fn patience_ends_a_cell_after_its_first_round() {
    let (mut bench, _folder) = bench(&options(), 64, &[cell(1, 20, 1)], 0);
    assert_eq!(bench.measure(cell(1, 20, 1), 1000, Duration::ZERO).unwrap().rounds, 1);
}

#[test]
fn weights_count_as_they_are_held() {
    let whole = |precision| {
        let options = ModelOptions { precision, ..options() };
        bench(&options, 4, &[], 0).0.weight_bytes()
    };
    let ratio = whole(Precision::F32) / whole(Precision::Q8_0);
    assert!((ratio - 32.0 / 9.0).abs() < 1e-6, "{ratio}");
}

#[test]
fn what_does_not_fit_says_why_and_is_not_measured() {
    let cells = [cell(1, MAX_POSITIONS, 1), cell(1, MAX_POSITIONS, 2), cell(5, 16, 1), cell(2, 16, 1)];
    let (mut bench, _folder) = bench(&options(), 9, &cells, 0);
    let memory = Some(Misfit::Memory { limit: 9 * PAGE });
    let positions = Some(Misfit::Positions { limit: MAX_POSITIONS });
    assert_eq!(cells.map(|cell| bench.misfit(cell)), [memory, positions, memory, None]);
    assert!(matches!(bench.measure(cells[1], 1, PATIENCE), Err(ModelError::Unsupported(_))));
}

#[test]
fn float32_agrees_with_itself_and_8_bits_nearly() {
    for (precision, largest) in [(Precision::F32, 1e-5), (Precision::Q8_0, 0.1)] {
        let options = ModelOptions { precision, ..options() };
        let (mut bench, folder) = bench(&options, 1024, &[], 100);
        let source = ModelSource::from_path(folder.path());
        let mut heard = Vec::new();
        let agreement = bench.check(&source, 100, 1, |compared| heard.push(compared)).unwrap();
        assert_eq!((agreement.positions, heard.last()), (100, Some(&100)));
        assert!(
            agreement.largest_error < largest && agreement.median_error <= agreement.largest_error,
            "{agreement:?}"
        );
        assert_eq!(agreement.median_error > 0.0, precision == Precision::Q8_0);
        assert!(agreement.same_token >= 90, "{agreement:?}");
    }
}

#[test]
fn another_model_does_not_agree() {
    let (mut bench, _folder) = bench(&options(), 1024, &[], 60);
    let folder = tempfile::tempdir().unwrap();
    let other = TinyLlama::random(2).write_folder(folder.path(), DType::BF16, 1);
    let agreement = bench.check(&other, 60, 1, |_| {}).unwrap();
    assert!(agreement.median_error > 0.5 && agreement.same_token < 30, "{agreement:?}");
}

#[test]
fn a_comparison_that_does_not_fit_is_refused() {
    let (mut bench, folder) = bench(&options(), 4, &[], 100);
    let source = ModelSource::from_path(folder.path());
    let held = 4 * PAGE;
    assert!(
        matches!(bench.check(&source, 100, 1, |_| {}), Err(ModelError::ContextTooLong { limit, .. }) if limit == held)
    );
    let positions = 16 * (MAX_POSITIONS + 1);
    let refused = bench.check(&source, positions, 1, |_| {});
    assert!(matches!(refused, Err(ModelError::ContextTooLong { limit: MAX_POSITIONS, .. })));
}
