//! `Residual::at` is the inverse of the cumulative weights.

use proptest::prelude::*;
use sidedraft::speculation::{Lossless, Residual, target};

use super::generate::{case, row};
use super::output::plain;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_quantile_falls_on_the_id_whose_share_of_the_weights_covers_it((p, law, n) in case(), u in 0.0..1.0_f64) {
        for (draft, _) in law.drafts() {
            let row = row(&p, n, draft.token);
            let known = target(&row, &plain()).unwrap();
            let residual = Residual::new(&draft, &known, &Lossless);
            let tail = (residual.tail > 0.0).then_some((None, residual.tail));
            let pieces: Vec<(Option<u32>, f64)> =
                residual.listed.iter().map(|(id, weight)| (Some(*id), *weight)).chain(tail).collect();
            let total: f64 = pieces.iter().map(|(_, weight)| weight).sum();
            if total < 1e-9 {
                continue;
            }
            // The middle of each piece falls on its id, and `u` on the piece around it.
            let mut from = 0.0;
            for (id, weight) in pieces {
                let (start, end) = (from / total, (from + weight) / total);
                if end - start > 1e-9 {
                    prop_assert_eq!(residual.at(f64::midpoint(start, end), draft.token), id);
                    if u > start + 1e-12 && u < end - 1e-12 {
                        prop_assert_eq!(residual.at(u, draft.token), id);
                    }
                }
                from += weight;
            }
        }
    }
}

#[test]
fn without_any_weight_the_draft_itself_is_the_answer() {
    let empty = Residual { listed: vec![(3, 0.0)], tail: 0.0 };
    assert_eq!(empty.at(0.5, 7), Some(7));
}

#[test]
fn the_last_quantile_is_not_lost_to_rounding() {
    let residual = Residual { listed: vec![(1, 0.1), (2, 0.2), (3, 0.0)], tail: 0.0 };
    assert_eq!(residual.at(1.0, 7), Some(2), "the last id that has weight");
    assert_eq!(Residual { tail: 0.1, ..residual }.at(1.0, 7), None);
}
