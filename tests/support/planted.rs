//! Rules of acceptance that are wrong, by which the tests show that they would notice.

use sidedraft::speculation::{AcceptanceRule, Lossless};

/// Keeps every draft.
pub struct AcceptAll;

impl AcceptanceRule for AcceptAll {
    fn acceptance(&self, _: f64, _: f64) -> f64 {
        1.0
    }
    fn residual(&self, p: f64, q: f64) -> f64 {
        Lossless.residual(p, q)
    }
    fn tail_acceptance(&self, p: f64, q: f64) -> f64 {
        Lossless.tail_acceptance(p, q)
    }
}

/// Draws from the target after a rejection, as if the draft had never been.
pub struct NothingSubtracted;

impl AcceptanceRule for NothingSubtracted {
    fn acceptance(&self, p: f64, q: f64) -> f64 {
        Lossless.acceptance(p, q)
    }
    fn residual(&self, p: f64, _: f64) -> f64 {
        p
    }
    fn tail_acceptance(&self, _: f64, _: f64) -> f64 {
        1.0
    }
}
