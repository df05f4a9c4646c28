//! What holds of the room as a whole, on a tiny random model.

mod ahead;
mod at_once;
mod schedules;
mod several;
mod shortlist;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::fixture::{MAX_POSITIONS, PAGE_BYTES, TinyLlama, VOCABULARY, options, with_pages};
use super::{DraftModel, DraftSampling, ModelError, ModelOptions, ModelSource, Precision, Sequence};
use crate::speculation::TokenId;

fn context(length: usize) -> Vec<TokenId> {
    (0..length).map(|i| (i * i * 7 + 3 * i + 5) as u32 % VOCABULARY as u32).collect()
}

fn tiny() -> DraftModel {
    TinyLlama::random(1).spawn(options())
}

async fn logits_of(source: &ModelSource, options: &ModelOptions) -> Vec<f32> {
    let model = DraftModel::load(source, options).unwrap().spawn().unwrap();
    model.sequence().logits(&context(40)).await.unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[tokio::test]
async fn every_format_holds_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let random = || TinyLlama::random(2);
    for tiny in [random(), random().untied(), random().qwen2(), random().qwen3().untied()] {
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let expected = logits_of(&tiny.write_folder(&at("f32"), DType::F32, 1), &options()).await;
        assert_eq!(expected, logits_of(&tiny.write_folder(&at("bf16"), DType::BF16, 1), &options()).await);
        assert_eq!(expected, logits_of(&tiny.write_folder(&at("shards"), DType::BF16, 3), &options()).await);
        let gguf = tiny.write_gguf(&folder.path().join("f32.gguf"), GgmlDType::F32);
        assert_eq!(expected, logits_of(&gguf, &options()).await);
        let half = logits_of(&tiny.write_folder(&at("f16"), DType::F16, 1), &options()).await;
        assert!(distance(&half, &expected) < 1e-3);
        let gguf = tiny.write_gguf(&folder.path().join("q8.gguf"), GgmlDType::Q8_0);
        assert!(distance(&logits_of(&gguf, &options()).await, &expected) < 0.05);
    }
}

#[tokio::test]
async fn an_untied_head_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let tied = logits_of(&TinyLlama::random(2).write_folder(folder.path(), DType::F32, 1), &options()).await;
    let source = TinyLlama::random(2).untied().write_folder(folder.path(), DType::F32, 1);
    assert!(distance(&logits_of(&source, &options()).await, &tied) > 0.5);
}

#[tokio::test]
async fn biases_and_head_norms_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let of = async |tiny: TinyLlama| logits_of(&tiny.write_folder(folder.path(), DType::F32, 1), &options()).await;
    let llama = of(TinyLlama::random(2)).await;
    assert!(distance(&of(TinyLlama::random(2).qwen2()).await, &llama) > 0.1);
    assert!(distance(&of(TinyLlama::random(2).qwen3()).await, &llama) > 0.1);
}

#[tokio::test]
async fn eight_bits_are_close_to_float32_and_threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = TinyLlama::random(3).write_folder(folder.path(), DType::BF16, 1);
    let exact = logits_of(&source, &options()).await;
    let eight_bits = ModelOptions { precision: Precision::Q8_0, ..options() };
    let one = logits_of(&source, &eight_bits).await;
    assert!(distance(&one, &exact) < 0.05, "{}", distance(&one, &exact));
    assert_eq!(one, logits_of(&source, &ModelOptions { threads: 3, ..eight_bits }).await);
    assert_eq!(exact, logits_of(&source, &ModelOptions { threads: 2, ..options() }).await);
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (tiny, part) in [
        (TinyLlama::random(1), "mlp.up_proj.weight"),
        (TinyLlama::random(1).qwen2(), "self_attn.k_proj.bias"),
        (TinyLlama::random(1).qwen3(), "self_attn.k_norm.weight"),
    ] {
        let name = format!("model.layers.1.{part}");
        let source = tiny.without(&name).write_folder(folder.path(), DType::F32, 1);
        let error = DraftModel::load(&source, &options()).unwrap_err();
        assert!(matches!(error, ModelError::MissingTensor(missing) if missing == name));
    }
}

#[test]
fn a_file_with_biases_that_its_architecture_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = TinyLlama::random(1).qwen2().named("llama").write_gguf(&folder.path().join("x.gguf"), GgmlDType::F32);
    let error = DraftModel::load(&source, &options()).unwrap_err().to_string();
    assert!(error.contains("Llama with a bias blk.") && error.contains(".bias is not implemented"), "{error}");
}

#[test]
fn files_that_are_no_models_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let load = |source: ModelSource| DraftModel::load(&source, &options()).unwrap_err();
    assert!(matches!(load(ModelSource::from_path(folder.path())), ModelError::Read { .. }));
    let gguf = folder.path().join("x.GGUF");
    std::fs::write(&gguf, "nothing").unwrap();
    assert!(matches!(load(ModelSource::from_path(gguf)), ModelError::Malformed { .. }));
    // A tensor's type is made one that llama.cpp has (IQ2_XXS) and the library does not.
    let ModelSource::Gguf(gguf) = TinyLlama::random(1).write_gguf(&folder.path().join("iq.gguf"), GgmlDType::F32)
    else {
        panic!("not a GGUF file")
    };
    let mut bytes = std::fs::read(&gguf).unwrap();
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 8;
    bytes[at..at + 4].copy_from_slice(&16u32.to_le_bytes());
    std::fs::write(&gguf, bytes).unwrap();
    let error = load(ModelSource::Gguf(gguf));
    assert!(matches!(&error, ModelError::Unsupported(what) if what.contains("unknown dtype for tensor 16")), "{error}");
    let source = TinyLlama::random(1).write_folder(folder.path(), DType::F32, 1);
    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 10_000]).unwrap();
    assert!(matches!(load(source), ModelError::Read { .. }));
}

#[tokio::test]
async fn rolling_back_and_going_on_is_like_starting_fresh() {
    let model = tiny();
    let mut sequence = model.sequence();
    let mut other = context(50);
    sequence.draft(&other, DraftSampling::new(5, 1.0)).await.unwrap();
    other.truncate(30);
    other.extend([9, 8, 7]);
    let rolled_back = sequence.logits(&other).await.unwrap();
    assert_eq!(rolled_back, tiny().sequence().logits(&other).await.unwrap());
    // The same context again: nothing is new, and the answer must come all the same.
    assert_eq!(rolled_back, sequence.logits(&other).await.unwrap());
}

#[tokio::test]
async fn preparing_changes_nothing_but_time() {
    let model = tiny();
    let mut prepared = model.sequence();
    prepared.prepare(&context(20));
    prepared.prepare(&context(1));
    prepared.prepare(&[]);
    prepared.prepare(&context(60));
    let logits = prepared.logits(&context(61)).await.unwrap();
    assert_eq!(logits, tiny().sequence().logits(&context(61)).await.unwrap());
}

#[tokio::test]
async fn chunks_and_company_do_not_change_a_sequence() {
    let alone = tiny().sequence().draft(&context(90), DraftSampling::new(12, 0.0)).await.unwrap();
    for precision in [Precision::F32, Precision::Q8_0] {
        let model = TinyLlama::random(1).spawn(ModelOptions { precision, rows_per_pass: 7, ..options() });
        let single = model.sequence().draft(&context(90), DraftSampling::new(12, 0.0)).await.unwrap();
        if precision == Precision::F32 {
            assert_eq!(single, alone);
        }
        let mut sequences: Vec<_> = (0..6).map(|_| model.sequence()).collect();
        let together = sequences.iter_mut().enumerate().map(|(index, sequence)| {
            let length = if index == 3 { 90 } else { 20 + index };
            async move { sequence.draft(&context(length), DraftSampling::new(12, 0.0)).await.unwrap() }
        });
        assert_eq!(futures_util::future::join_all(together).await[3], single);
    }
}

#[tokio::test]
async fn greedy_drafts_are_the_argmax_of_each_step() {
    let model = tiny();
    let mut tokens = context(10);
    let drafted = model.sequence().draft(&tokens, DraftSampling::new(6, 0.0)).await.unwrap();
    assert_eq!(drafted.len(), 6);
    // A model of its own, which shares no pages.
    let mut stepper = tiny().sequence();
    for draft in drafted {
        let logits = stepper.logits(&tokens).await.unwrap();
        let best = (0..VOCABULARY).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!((draft.token, draft.distribution), (best as u32, None));
        tokens.push(draft.token);
    }
}

#[tokio::test]
async fn sampled_drafts_report_the_softmax_they_came_from() {
    let model = tiny();
    let mut tokens = context(10);
    let sampling = DraftSampling { usable_vocabulary: 50, ..DraftSampling::new(8, 0.7) };
    let drafted = model.sequence().draft(&tokens, sampling).await.unwrap();
    // A model of its own, which shares no pages.
    let mut stepper = tiny().sequence();
    for draft in drafted {
        let logits = stepper.logits(&tokens).await.unwrap();
        let q = draft.distribution.unwrap();
        assert_eq!(q.len(), 32);
        assert!(q.iter().all(|(id, _)| *id < 50));
        let weight = |id: u32| (f64::from(logits[id as usize]) / 0.7).exp();
        let total: f64 = q.iter().map(|(id, _)| weight(*id)).sum();
        assert!(q.iter().all(|(id, q)| (weight(*id) / total - q).abs() < 1e-9));
        assert!(q.iter().any(|(id, _)| *id == draft.token));
        tokens.push(draft.token);
    }
}

#[tokio::test]
async fn the_same_seed_drafts_the_same() {
    let draft = |seed| async move {
        let model = TinyLlama::random(1).spawn(ModelOptions { seed: Some(seed), ..options() });
        let drafted = model.sequence().draft(&context(5), DraftSampling::new(20, 1.0)).await.unwrap();
        drafted.iter().map(|draft| draft.token).collect::<Vec<_>>()
    };
    assert_eq!(draft(1).await, draft(1).await);
    assert_ne!(draft(1).await, draft(2).await);
}

#[tokio::test]
async fn contexts_that_cannot_be_continued_are_errors() {
    let model = TinyLlama::random(1).spawn(ModelOptions { max_positions: Some(20), ..options() });
    assert_eq!(model.max_positions(), 20);
    assert_eq!(tiny().max_positions(), MAX_POSITIONS);
    let mut sequence = model.sequence();
    let sampling = || DraftSampling::new(4, 0.0);
    assert!(matches!(sequence.draft(&[], sampling()).await, Err(ModelError::EmptyContext)));
    let error = sequence.draft(&context(21), sampling()).await.unwrap_err();
    assert!(matches!(error, ModelError::ContextTooLong { length: 21, limit: 20 }));
    let error = sequence.draft(&[3, 96], sampling()).await.unwrap_err();
    assert!(matches!(error, ModelError::UnknownToken { token: 96, vocabulary: 96 }));
    // Where the positions end, the draft does: the last token drafted needs none.
    assert_eq!(sequence.draft(&context(18), sampling()).await.unwrap().len(), 3);
    assert_eq!(sequence.draft(&context(20), sampling()).await.unwrap().len(), 1);
    assert_eq!(sequence.draft(&context(20), DraftSampling::new(0, 0.0)).await.unwrap(), []);
}

#[tokio::test]
async fn more_sequences_than_fit_take_turns() {
    // Each comes to hold three pages.
    let model = TinyLlama::random(1).spawn(ModelOptions { rows_per_pass: 16, ..with_pages(7) });
    let mut sequences: Vec<_> = (0..5).map(|_| model.sequence()).collect();
    let sampling = || DraftSampling::new(6, 0.0);
    let text = |index: usize| context(40 + index).split_off(index);
    let mut drafts = Vec::new();
    for round in 0..3 {
        let calls = sequences
            .iter_mut()
            .enumerate()
            .map(|(index, sequence)| async move { sequence.draft(&text(index), sampling()).await.unwrap() });
        let round_drafts = futures_util::future::join_all(calls).await;
        assert!(model.active_sequences() <= 2 && model.pages_held() <= 7);
        assert!(round == 0 || drafts == round_drafts);
        drafts = round_drafts;
    }
    assert!(model.evictions() >= 10);
    assert_eq!(drafts[4], tiny().sequence().draft(&text(4), sampling()).await.unwrap());
}

#[tokio::test]
async fn a_context_beyond_the_cache_is_an_error_and_one_that_fills_it_is_not() {
    let model = TinyLlama::random(1).spawn(with_pages(3));
    assert_eq!((model.pages(), model.max_positions()), (3, 48));
    let mut sequence = model.sequence();
    let error = sequence.draft(&context(49), DraftSampling::new(1, 0.0)).await.unwrap_err();
    assert!(matches!(error, ModelError::ContextTooLong { length: 49, limit: 48 }));
    assert_eq!(sequence.draft(&context(48), DraftSampling::new(9, 0.0)).await.unwrap().len(), 1);
    assert_eq!(sequence.draft(&context(46), DraftSampling::new(9, 0.0)).await.unwrap().len(), 3);
    assert_eq!(model.pages_held(), 3);
}

#[test]
fn a_cache_without_room_for_a_page_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let source = TinyLlama::random(1).write_folder(folder.path(), DType::F32, 1);
    let cache_bytes = PAGE_BYTES - 1;
    let error = DraftModel::load(&source, &ModelOptions { cache_bytes, ..options() }).unwrap_err();
    assert!(matches!(error, ModelError::CacheTooSmall { bytes, page: PAGE_BYTES } if bytes == cache_bytes));
}

#[tokio::test]
async fn a_group_shares_the_pages_of_its_prompt() {
    let (model, prompt) = (tiny(), context(100));
    let draft = async |mut sequence: Sequence| sequence.draft(&prompt, DraftSampling::new(5, 0.0)).await.unwrap();
    let alone = draft(model.sequence()).await;
    let rows = model.rows();
    assert_eq!(draft(model.sequence()).await, alone);
    assert_eq!((model.rows() - rows, model.recalled()), (4 + 4, 96), "of the prompt, what fills no page");
}

#[tokio::test]
async fn a_dropped_sequence_frees_its_place() {
    let model = tiny();
    let (mut first, mut second) = (model.sequence(), model.sequence());
    first.logits(&context(5)).await.unwrap();
    second.logits(&context(5)).await.unwrap();
    assert_eq!(model.active_sequences(), 2);
    drop(first);
    second.logits(&context(6)).await.unwrap();
    assert_eq!(model.active_sequences(), 1);
}

#[tokio::test]
async fn an_abandoned_call_leaves_a_usable_sequence() {
    let model = tiny();
    let mut sequence = model.sequence();
    {
        let text = context(100);
        let _held = model.hold();
        let mut call = Box::pin(sequence.draft(&text, DraftSampling::new(100, 1.0)));
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    let logits = sequence.logits(&context(40)).await.unwrap();
    assert_eq!(logits, tiny().sequence().logits(&context(40)).await.unwrap());
}

/// Libraries that the thread is in must not be torn down under it by the end of the process.
#[tokio::test]
async fn the_last_handle_is_gone_only_when_the_thread_is() {
    let model = tiny();
    let shared = model.shared();
    let mut sequence = model.sequence();
    sequence.logits(&context(5)).await.unwrap();
    sequence.prepare(&context(100));
    drop(model);
    assert!(shared.upgrade().is_some());
    drop(sequence);
    assert!(shared.upgrade().is_none());
}

#[tokio::test]
async fn a_stopped_thread_answers_every_call_with_an_error() {
    for stop in [DraftModel::stop, DraftModel::panic] {
        let model = tiny();
        let (mut running, mut later) = (model.sequence(), model.sequence());
        let text = context(100);
        let held = model.hold();
        let mut call = Box::pin(running.draft(&text, DraftSampling::new(150, 1.0)));
        assert!(futures_util::poll!(&mut call).is_pending());
        stop(&model);
        drop(held);
        assert!(matches!(call.await, Err(ModelError::Stopped)));
        assert!(matches!(later.logits(&text).await, Err(ModelError::Stopped)));
        later.prepare(&text);
        later.draft_ahead(&text, DraftSampling::new(5, 1.0));
    }
}
