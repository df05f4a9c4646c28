//! Parts of the sidecar's that panic when they are told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sidedraft::draft::Drafter;
use sidedraft::rollout::DrafterFactory;
use sidedraft::speculation::{AcceptanceRule, Lossless};

/// Whether what was planted panics. Clones are told together.
#[derive(Clone, Default)]
pub struct Fuse(Arc<AtomicBool>);

impl Fuse {
    /// Has it panic from now on, or no more.
    pub fn arm(&self, armed: bool) {
        self.0.store(armed, Ordering::SeqCst);
    }

    /// Panics if it is to.
    pub fn step(&self) {
        assert!(!self.0.load(Ordering::SeqCst), "a planted bug");
    }

    /// Panics if it is to, and then no more.
    pub fn step_once(&self) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "a planted bug");
    }
}

/// Asked for drafters by the handler of a request.
pub struct PanickingFactory(pub Fuse, pub Arc<dyn DrafterFactory>);

impl DrafterFactory for PanickingFactory {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        self.0.step();
        self.1.drafters()
    }
}

/// Asked in the middle of a rollout.
pub struct PanickingRule(pub Fuse);

impl AcceptanceRule for PanickingRule {
    fn acceptance(&self, p: f64, q: f64) -> f64 {
        self.0.step();
        Lossless.acceptance(p, q)
    }

    fn residual(&self, p: f64, q: f64) -> f64 {
        Lossless.residual(p, q)
    }

    fn tail_acceptance(&self, p: f64, q: f64) -> f64 {
        Lossless.tail_acceptance(p, q)
    }
}
