//! A server's replies: whatever they say of drafts, a judgement comes of it that can be reported.

use std::borrow::Cow;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sidedraft::speculation::{
    Draft, DraftDistribution, Judge, Lossless, Observation, Row, Sampling, Scored, TailVerdict, Verdict,
};
use sidedraft::upstream::fuzzing::{metrics, reply};
use sidedraft::upstream::{Call, Origin, PromptScores, Route, Runner, SamplingFields};
use sidedraft::verify::{rows, sampled_as_scored};

const PROMPT: [u32; 6] = [5, 6, 7, 1, 2, 3];
/// The last of them are drafts.
const DRAFTS: usize = 3;

/// The first byte chooses what was asked and how.
pub fn run(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    if choice % 8 == 7 {
        let gauges = metrics(&String::from_utf8_lossy(body));
        assert!(gauges.is_none_or(|gauges| gauges.block_size != Some(0)), "a block of nothing");
        return;
    }
    let origin = Origin::default();
    let route = if choice % 2 == 0 { Route::Completions } else { Route::Generate };
    let asked = match choice / 2 % 4 {
        0 => None,
        1 => Some(PromptScores::as_written(4)),
        _ => Some(PromptScores::last(DRAFTS, 4)),
    };
    let call = Call {
        sampling: Cow::Owned(SamplingFields::neutral()),
        logprobs: 4,
        prompt_logprobs: asked,
        ..Call::new(&origin, &PROMPT)
    };
    let Ok(reply) = reply(route, body, &call) else { return };
    assert_eq!(reply.choices.len(), 1, "as many as were asked for");
    for choice in reply.choices {
        let sampled: Vec<Scored> = choice.tokens.into_iter().map(|token| sampled_as_scored(token, 3)).collect();
        let Some(rows) = choice.prompt.as_ref().and_then(|prompt| prompt.rows()) else { continue };
        for runner in [Runner::V1, Runner::V2, Runner::Unknown] {
            for (index, &draft) in PROMPT.iter().enumerate().skip(PROMPT.len() - DRAFTS) {
                let aligned = rows::Aligned { rows, cached_tokens: reply.cached_tokens, runner };
                let row = rows::computed_row(aligned, PROMPT.len(), index);
                for listed in [None, Some((&PROMPT[..2], &[-0.5, -9.0][..]))] {
                    if let Some(Observation::Row(row)) = row.and_then(|row| rows::observation(row, 4, draft, listed)) {
                        judge(&row, draft, &sampled);
                    }
                }
            }
        }
    }
}

/// Judges a draft by a row in every way that there is.
fn judge(row: &Row, draft: u32, sampled: &[Scored]) {
    let mut rng = StdRng::seed_from_u64(7);
    let samplings = [
        Some(Sampling::greedy()),
        Sampling::new(1.0, None, 1.0, 0.0),
        Sampling::new(0.7, Some(3), 0.9, 0.05),
        Sampling::new(2.0, None, 0.5, 0.0),
    ];
    let even = (0..8).map(|id| (id, 0.125)).collect();
    let qs =
        [DraftDistribution::PointMass, DraftDistribution::Listed(even), DraftDistribution::Partial(vec![(draft, 0.5)])];
    for sampling in samplings.into_iter().flatten() {
        let mut judge = Judge::new(sampling, Arc::new(Lossless));
        for q in &qs {
            let draft = Draft::new(draft, q.clone());
            match judge.draft(&draft, Observation::Row(row.clone()), &mut rng) {
                Verdict::Keep(scored) => assert!(scored.token == draft.token && scored.logprob < 0.01),
                Verdict::Token(scored) => assert!(scored.logprob < 0.01, "{scored:?}"),
                Verdict::Outside(mut row) => {
                    for drawn in sampled {
                        let verdict = judge.tail(&draft, &mut row, drawn, &mut rng);
                        assert!(!matches!(verdict, TailVerdict::Token(scored) if scored.logprob.is_nan()));
                    }
                }
                Verdict::Sample => {}
            }
        }
    }
}
