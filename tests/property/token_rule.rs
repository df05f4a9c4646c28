//! The token rule, tail included, leaves the target's distribution as it is, and rules that are not lossless do not.

use proptest::prelude::*;
use sidedraft::speculation::{AcceptanceRule, Lossless};

use super::generate::{DraftLaw, case};
use super::output::{distance, of_token_rule};
use super::support::planted::{AcceptAll, NothingSubtracted};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_output_is_distributed_as_the_target((p, law, n) in case()) {
        let output = of_token_rule(&p, &law, n, &Lossless);
        prop_assert!(distance(&output, &p) < 1e-12, "{output:?} instead of {p:?}");
    }
}

/// Keeps whatever the server draws from the tail.
struct TailUnjudged;

impl AcceptanceRule for TailUnjudged {
    fn acceptance(&self, p: f64, q: f64) -> f64 {
        Lossless.acceptance(p, q)
    }
    fn residual(&self, p: f64, q: f64) -> f64 {
        Lossless.residual(p, q)
    }
    fn tail_acceptance(&self, _: f64, _: f64) -> f64 {
        1.0
    }
}

/// A drafter that is sure of other ids than the target is.
fn mistaken() -> (Vec<f64>, DraftLaw) {
    let p = vec![0.4, 0.3, 0.15, 0.1, 0.05];
    (p, DraftLaw::listed(vec![0.05, 0.1, 0.15, 0.3, 0.4]))
}

#[test]
fn rules_that_are_not_lossless_change_the_output() {
    let (p, law) = mistaken();
    let error = |n, rule: &dyn AcceptanceRule| distance(&of_token_rule(&p, &law, n, rule), &p);
    assert!(error(2, &Lossless) < 1e-12);
    assert!(error(2, &AcceptAll) > 0.1);
    assert!(error(5, &NothingSubtracted) > 0.05);
    assert!(error(2, &NothingSubtracted) > 0.05);
    assert!(error(2, &TailUnjudged) > 0.05);
}

/// Almost every draw from the tail comes to nothing, since the draft has the same tail: each must teach something.
#[test]
fn a_drafter_that_is_almost_right_is_exact_too() {
    let p = vec![0.3, 0.2, 0.2, 0.1, 0.1, 0.1];
    let law = DraftLaw::listed(vec![0.299, 0.2005, 0.2, 0.1001, 0.1, 0.1004]);
    assert!(distance(&of_token_rule(&p, &law, 1, &Lossless), &p) < 1e-12);
}
