//! What is drafted ahead is what would have been drafted, and costs nobody who waits.

use super::*;
use crate::model::DraftedToken;
use crate::model::stats::g_test;
use crate::speculation::{CONFIDENCE_BINS, StopRule, confidence_bin};

fn greedy(length: usize) -> DraftSampling {
    DraftSampling::new(length, 0.0)
}

/// `text` and then the tokens of `drafted`.
fn after(text: &[TokenId], drafted: &[DraftedToken]) -> Vec<TokenId> {
    text.iter().copied().chain(drafted.iter().map(|draft| draft.token)).collect()
}

#[tokio::test]
async fn drafting_ahead_and_then_on_is_drafting_in_one_go() {
    let text = context(10);
    let whole = tiny().sequence().draft(&text, greedy(9)).await.unwrap();
    // The server gave one token after the three drafts, or several.
    for confirmed in 4..7 {
        let model = tiny();
        let mut sequence = model.sequence();
        assert_eq!(sequence.draft(&text, greedy(3)).await.unwrap(), whole[..3]);
        sequence.draft_ahead(&after(&text, &whole[..3]), greedy(4));
        model.settle().await;
        let rows = model.rows();
        let rest = sequence.draft(&after(&text, &whole[..confirmed]), greedy(9 - confirmed)).await.unwrap();
        assert_eq!(rest, whole[confirmed..]);
        assert_eq!(model.used_ahead(), 7 - confirmed as u64);
        assert_eq!(model.rows() - rows, 2, "the two drafts that were still to come");
    }
}

#[tokio::test]
async fn enough_drafted_ahead_is_an_answer_without_a_pass() {
    let (model, text) = (tiny(), context(10));
    let whole = model.sequence().draft(&text, greedy(6)).await.unwrap();
    let mut sequence = model.sequence();
    sequence.draft_ahead(&text, greedy(6));
    model.settle().await;
    let rows = model.rows();
    assert_eq!(sequence.draft(&after(&text, &whole[..1]), greedy(3)).await.unwrap(), whole[1..4]);
    assert_eq!((model.rows(), model.used_ahead()), (rows, 3));
    // Taken once: what was left over is gone, and drafted again.
    assert_eq!(sequence.draft(&after(&text, &whole[..4]), greedy(2)).await.unwrap(), whole[4..]);
    assert_eq!(model.used_ahead(), 3);
}

#[tokio::test]
async fn work_ahead_that_does_not_fit_is_dropped() {
    let (model, text) = (tiny(), context(10));
    let whole = model.sequence().draft(&text, greedy(6)).await.unwrap();
    let other = whole[0].token ^ 1;
    let contexts = [
        [&text[..], &[other]].concat(),
        [&after(&text, &whole[..2])[..], &[whole[2].token ^ 1]].concat(),
        text[..9].to_vec(),
        after(&text, &whole),
    ];
    for next in contexts {
        let mut sequence = model.sequence();
        sequence.draft_ahead(&text, greedy(5));
        model.settle().await;
        let plain = tiny().sequence().draft(&next, greedy(5)).await.unwrap();
        assert_eq!(sequence.draft(&next, greedy(5)).await.unwrap(), plain);
    }
    for unlike in [
        DraftSampling::new(3, 1.0),
        DraftSampling { top_m: 4, ..greedy(3) },
        DraftSampling { usable_vocabulary: 50, ..greedy(3) },
    ] {
        let mut sequence = model.sequence();
        sequence.draft_ahead(&text, greedy(5));
        model.settle().await;
        sequence.draft(&after(&text, &whole[..1]), unlike).await.unwrap();
    }
    assert_eq!(model.used_ahead(), 0);
}

#[tokio::test]
async fn work_ahead_that_had_no_time_changes_nothing() {
    let (model, text) = (tiny(), context(10));
    let whole = model.sequence().draft(&text, greedy(6)).await.unwrap();
    let mut sequence = model.sequence();
    let held = model.hold();
    sequence.draft_ahead(&text, greedy(5));
    let next = after(&text, &whole[..1]);
    let mut call = Box::pin(sequence.draft(&next, greedy(5)));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(held);
    assert_eq!(call.await.unwrap(), whole[1..]);
    assert_eq!(model.used_ahead(), 0);
}

#[tokio::test]
async fn what_was_drafted_ahead_is_distributed_as_its_q_says() {
    let (model, text) = (tiny(), context(6));
    let sampling = |length| DraftSampling { top_m: 4, ..DraftSampling::new(length, 1.5) };
    let likeliest = model.sequence().draft(&text, greedy(1)).await.unwrap();
    let next = after(&text, &likeliest);
    let q = model.sequence().draft(&next, sampling(1)).await.unwrap().remove(0).distribution.unwrap();
    let mut sequence = model.sequence();
    let mut counts = vec![0u64; q.len()];
    while counts.iter().sum::<u64>() < 4000 {
        sequence.draft_ahead(&text, sampling(2));
        model.settle().await;
        let used = model.used_ahead();
        let drafted = sequence.draft(&next, sampling(1)).await.unwrap().remove(0);
        // Only where the server's token was the one drafted ahead.
        if model.used_ahead() > used {
            assert_eq!(drafted.distribution.as_ref(), Some(&q));
            counts[q.iter().position(|(id, _)| *id == drafted.token).unwrap()] += 1;
        }
    }
    // The seed is fixed.
    let test = g_test(&counts, &q.iter().map(|(_, q)| *q).collect::<Vec<_>>());
    assert!(test.p_value > 1e-3, "{test:?}: {counts:?} of {q:?}");
}

/// Acceptance that differs by bin, so that where it stops depends on the confidences.
fn rule(least: f32) -> StopRule {
    StopRule { acceptance: std::array::from_fn(|bin| (bin + 8) as f32 / (CONFIDENCE_BINS + 8) as f32), least }
}

/// How many of these drafts there are until the product of forecasts is below the least.
fn until_stopped(drafted: &[DraftedToken], rule: &StopRule) -> usize {
    let survival = |count: usize| -> f32 {
        drafted[..count].iter().map(|draft| rule.acceptance[confidence_bin(draft.confidence)]).product()
    };
    (1..=drafted.len()).find(|count| survival(*count) < rule.least).unwrap_or(drafted.len())
}

#[tokio::test]
async fn drafting_stops_where_the_forecast_falls_below_the_least() {
    let (model, text) = (tiny(), context(10));
    let whole = model.sequence().draft(&text, greedy(20)).await.unwrap();
    let mut lengths = Vec::new();
    for least in [0.9, 0.5, 0.3, 0.1, 0.02, 1e-4] {
        let stop = rule(least);
        let drafted = model.sequence().draft(&text, DraftSampling { stop, ..greedy(20) }).await.unwrap();
        assert_eq!(drafted, whole[..until_stopped(&whole, &stop)]);
        lengths.push(drafted.len());

        // Ahead, the first is not part of the product.
        let ahead = tiny();
        let mut sequence = ahead.sequence();
        sequence.draft_ahead(&text, DraftSampling { stop, ..greedy(20) });
        ahead.settle().await;
        assert_eq!(ahead.rows(), (text.len() + until_stopped(&whole[1..], &stop)) as u64);
        // A rule of its own cuts what was drafted ahead, or goes on where that stopped.
        let next = after(&text, &whole[..1]);
        for stop in [rule(0.4), StopRule::never()] {
            let sampling = DraftSampling { stop, ..greedy(19) };
            assert_eq!(sequence.draft(&next, sampling).await.unwrap(), whole[1..][..until_stopped(&whole[1..], &stop)]);
        }
    }
    assert!(lengths.is_sorted() && lengths[0] < lengths[5], "{lengths:?}");
}

#[tokio::test]
async fn nothing_is_drafted_after_an_end() {
    let (model, text) = (tiny(), context(10));
    let whole = model.sequence().draft(&text, greedy(8)).await.unwrap();
    let end = whole[3].token;
    let first = whole.iter().position(|draft| draft.token == end).unwrap();
    let sampling = DraftSampling { ends: [end].into(), ..greedy(8) };
    assert_eq!(model.sequence().draft(&text, sampling.clone()).await.unwrap(), whole[..=first]);
    let model = tiny();
    let mut sequence = model.sequence();
    sequence.draft_ahead(&text, sampling);
    model.settle().await;
    assert_eq!(model.rows(), (text.len() + first) as u64);
}

#[tokio::test]
async fn work_ahead_neither_keeps_a_place_nor_outlives_its_sequence() {
    let model = TinyLlama::random(1).spawn(with_pages(1));
    let (text, mut idle) = (context(10), model.sequence());
    idle.draft_ahead(&text, greedy(4));
    model.settle().await;
    let whole = tiny().sequence().draft(&text, greedy(5)).await.unwrap();
    assert_eq!(model.sequence().draft(&text, greedy(5)).await.unwrap(), whole);
    // Its cache went, its drafts did not.
    assert_eq!(idle.draft(&after(&text, &whole[..1]), greedy(4)).await.unwrap(), whole[1..]);
    assert_eq!(model.used_ahead(), 3);
    idle.draft_ahead(&text, greedy(100));
    drop(idle);
    model.settle().await;
    assert_eq!(model.active_sequences(), 0);
}
