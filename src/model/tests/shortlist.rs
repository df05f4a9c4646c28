//! Drafts from a part of the vocabulary are drawn from the distribution that they report.

use super::*;

fn short(precision: Precision) -> DraftModel {
    TinyLlama::random(1).spawn(ModelOptions { shortlist: Some(16), precision, ..options() })
}

#[tokio::test]
async fn drafts_are_drawn_from_low_ids_and_those_seen_by_their_logits() {
    for precision in [Precision::F32, Precision::Q8_0] {
        let model = short(precision);
        let mut tokens = vec![3, 90, 41, 90];
        let sampling = DraftSampling { top_m: 96, ..DraftSampling::new(8, 0.7) };
        let drafted = model.sequence().draft(&tokens, sampling).await.unwrap();
        let mut listed: Vec<TokenId> = (0..16).chain([90, 41]).collect();
        listed.sort_unstable();
        let mut stepper = model.sequence();
        for draft in drafted {
            let logits = stepper.logits(&tokens).await.unwrap();
            assert_eq!(logits.len(), VOCABULARY, "whoever asks for logits gets them all");
            let q = draft.distribution.unwrap();
            let mut ids: Vec<TokenId> = q.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            assert_eq!(ids, listed);
            let weight = |id: u32| (f64::from(logits[id as usize]) / 0.7).exp();
            let total: f64 = listed.iter().map(|id| weight(*id)).sum();
            assert!(q.iter().all(|(id, q)| (weight(*id) / total - q).abs() < 1e-9));
            tokens.push(draft.token);
        }
    }
}

#[tokio::test]
async fn an_id_is_drafted_once_it_was_seen() {
    let (text, whole) = (context(10), tiny());
    let best = whole.sequence().draft(&text, DraftSampling::new(1, 0.0)).await.unwrap()[0].token;
    assert!(best >= 16 && !text.contains(&best), "another text is needed");
    let (model, mut tokens) = (short(Precision::F32), text.clone());
    let draft =
        async |text: &[TokenId]| model.sequence().draft(text, DraftSampling::new(1, 0.0)).await.unwrap()[0].token;
    assert_ne!(draft(&text).await, best);
    // Another rollout got it from the server.
    tokens.push(best);
    model.sequence().prepare(&tokens);
    assert_eq!(draft(&text).await, best);
}

#[tokio::test]
async fn whoever_asks_for_all_logits_meanwhile_changes_no_draft() {
    let (text, sampling) = (context(10), || DraftSampling::new(8, 0.0));
    let alone = short(Precision::Q8_0).sequence().draft(&text, sampling()).await.unwrap();
    let model = short(Precision::Q8_0);
    let (mut drafting, mut asking) = (model.sequence(), model.sequence());
    let held = model.hold();
    let mut draft = Box::pin(drafting.draft(&text, sampling()));
    let mut logits = Box::pin(asking.logits(&text));
    assert!(futures_util::poll!(&mut draft).is_pending() && futures_util::poll!(&mut logits).is_pending());
    drop(held);
    assert_eq!(draft.await.unwrap(), alone);
    assert_eq!(logits.await.unwrap().len(), VOCABULARY);
}
