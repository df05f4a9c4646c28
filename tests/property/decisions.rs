//! A judge decides as the acceptance, the residual and the tail acceptance say, so that what is summed over those speaks
//! for the code that runs.

use std::sync::Arc;

use proptest::prelude::*;
use rand::RngCore;
use sidedraft::speculation::{
    AcceptanceRule, Draft, Judge, Lossless, Observation, Residual, Row, Scored, TailVerdict, Verdict, target,
};

use super::generate::{case, row};
use super::output::plain;

/// Random numbers that a test wrote down.
pub struct Script {
    left: Vec<u64>,
}

impl Script {
    /// Gives `uniforms` in this order, each as the f64 that `random()` makes of it.
    pub fn new(uniforms: &[f64]) -> Self {
        let bits = |u: &f64| ((u * (1_u64 << 53) as f64) as u64) << 11;
        Self { left: uniforms.iter().rev().map(bits).collect() }
    }
}

impl RngCore for Script {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }
    fn next_u64(&mut self) -> u64 {
        self.left.pop().expect("no more randomness than a decision needs")
    }
    fn fill_bytes(&mut self, _: &mut [u8]) {
        panic!("decisions are made on uniform numbers");
    }
}

/// A quantile at a border of two decisions belongs to either.
fn is_clear(u: f64, border: f64) -> bool {
    (u - border).abs() > 1e-9
}

pub fn judge() -> Judge {
    Judge::new(plain(), Arc::new(Lossless))
}

/// What a new judge makes of one draft.
fn judged(draft: &Draft, row: &Row, uniforms: &[f64]) -> Verdict {
    judge().draft(draft, Observation::Row(row.clone()), &mut Script::new(uniforms))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_draft_is_judged_by_its_acceptance_and_its_residual(
        (p, law, n) in case(), u in 0.0..1.0_f64, v in 0.0..1.0_f64,
    ) {
        for (draft, _) in law.drafts() {
            let row = row(&p, n, draft.token);
            let known = target(&row, &plain()).unwrap();
            let q = draft.probability_of(draft.token);
            let acceptance = Lossless.acceptance(known.probability_of(draft.token).unwrap(), q);
            if !is_clear(u, acceptance) {
                continue;
            }
            let verdict = judged(&draft, &row, &[u, v]);
            if u < acceptance {
                prop_assert_eq!(verdict, Verdict::Keep(row.scored(draft.token).unwrap()));
                continue;
            }
            let expected = Residual::new(&draft, &known, &Lossless).at(quantised(v), draft.token);
            match (expected, verdict) {
                (Some(token), Verdict::Token(scored)) => {
                    prop_assert_eq!(scored.token, token);
                    prop_assert_eq!(scored.logprob, row.logprob(token).unwrap());
                    prop_assert_eq!(scored.top, row.top());
                }
                (None, Verdict::Outside(left)) => prop_assert_eq!(left, row),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_draw_from_the_tail_is_judged_by_its_acceptance_and_learnt_otherwise(
        (p, law, n) in case(), u in 0.0..1.0_f64, v in 0.0..1.0_f64,
    ) {
        for (draft, _) in law.drafts() {
            let row = row(&p, n, draft.token);
            for token in (0..p.len() as u32).filter(|id| row.logprob(*id).is_none()) {
                let drawn = Scored { token, logprob: p[token as usize].ln(), rank: None, top: Vec::new() };
                let acceptance = Lossless.tail_acceptance(drawn.logprob.exp(), draft.probability_of(token));
                if !is_clear(u, acceptance) {
                    continue;
                }
                let mut learnt = row.clone();
                let verdict = judge().tail(&draft, &mut learnt, &drawn, &mut Script::new(&[u, v]));
                if u < acceptance {
                    prop_assert_eq!(verdict, TailVerdict::Keep);
                    continue;
                }
                prop_assert_eq!(learnt.logprob(token), Some(drawn.logprob));
                prop_assert_eq!(learnt.top(), row.top());
                let known = target(&learnt, &plain()).unwrap();
                match (Residual::new(&draft, &known, &Lossless).at(quantised(v), draft.token), verdict) {
                    (Some(expected), TailVerdict::Token(scored)) => prop_assert_eq!(scored.token, expected),
                    (None, TailVerdict::Again) => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    /// What a judge keeps from one position for the next is memory, and decides nothing.
    #[test]
    fn a_judge_decides_each_position_like_one_that_has_judged_nothing(
        (p, law, n) in case(), uniforms in proptest::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 12),
    ) {
        let mut judge = judge();
        for ((draft, _), (u, v)) in law.drafts().zip(uniforms) {
            let row = row(&p, n, draft.token);
            let verdict = judge.draft(&draft, Observation::Row(row.clone()), &mut Script::new(&[u, v]));
            prop_assert_eq!(&verdict, &judged(&draft, &row, &[u, v]));
            let acceptance = Lossless.acceptance(p[draft.token as usize], draft.probability_of(draft.token));
            if is_clear(u, acceptance) {
                prop_assert_eq!(matches!(verdict, Verdict::Keep(_)), u < acceptance);
            }
        }
    }
}

/// What `random()` makes of the bits that [`Script`] made of `u`.
fn quantised(u: f64) -> f64 {
    let scale = (1_u64 << 53) as f64;
    (u * scale).floor() / scale
}

#[test]
fn a_drawn_token_that_was_banned_is_drawn_again() {
    let draft = Draft::certain(0);
    let mut row = row(&[0.5, 0.3, 0.2], 2, 0);
    let drawn = Scored { token: 1, logprob: 0.3_f64.ln(), rank: None, top: Vec::new() };
    let verdict = judge().tail(&draft, &mut row, &drawn, &mut Script::new(&[0.1]));
    assert!(matches!(verdict, TailVerdict::Token(scored) if scored.token == 1));
    let verdict = judge().tail(&draft, &mut row, &drawn, &mut Script::new(&[0.9]));
    assert_eq!(verdict, TailVerdict::Again);
}
