//! The backend behind the model thread: sequences on shared pages, drafts that come several at a time.

use super::*;
use crate::model::{Device as Computes, DraftModel, DraftSampling, LoadedModel, ModelOptions};

fn spawn(weights: &Weights) -> DraftModel {
    let backend = Box::new(Rig::new(weights, false).engine);
    let device = Computes::Cuda { name: "an emulated one".into() };
    LoadedModel { backend, options: ModelOptions::default(), device, fallback: None }.spawn().unwrap()
}

/// The likeliest tokens after a context, one after another, and by how much each leads.
fn greedy(weights: &Weights, context: &[TokenId], count: usize) -> Vec<(TokenId, f64)> {
    let mut context = context.to_vec();
    let next = |_| {
        let logits = reference::logits(weights, &context).pop().unwrap();
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        context.push(ids[0] as TokenId);
        (ids[0] as TokenId, logits[ids[0]] - logits[ids[1]])
    };
    (0..count).map(next).collect()
}

#[tokio::test]
async fn sequences_draft_what_the_model_says_however_they_share_and_return() {
    let weights = shapes::tiny_llama();
    let model = spawn(&weights);
    assert_eq!(model.device().kind(), "cuda");
    let prompt = shapes::tokens(40, 9, &weights.config);
    // More than one graph drafts; the second context begins as the first, the third cuts it short.
    let contexts = [prompt.clone(), [&prompt[..], &[7, 8, 9]].concat(), prompt[..21].to_vec()];
    let mut sequences = [model.sequence(), model.sequence()];
    let mut followed = 0;
    for context in contexts {
        let wanted = greedy(&weights, &context, 11);
        for sequence in &mut sequences {
            let drafts = sequence.draft(&context, DraftSampling::new(11, 0.0)).await.unwrap();
            assert_eq!(drafts.len(), 11);
            // Beyond a lead that rounding can turn, anything may follow.
            for (draft, (token, _)) in drafts.iter().zip(&wanted).take_while(|(_, (_, lead))| *lead > 0.02) {
                assert_eq!(draft.token, *token);
                followed += 1;
            }
        }
    }
    assert!(followed > 30, "{followed}");
    assert!(model.recalled() > 0);
    assert_eq!(model.failures(), 0);
}
