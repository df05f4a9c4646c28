//! Tests of the backend with its kernels emulated on the host: the same sources, launches and packed bytes as on a GPU.

mod distribution;
mod drafts;
mod driver;
mod emulated;
mod gpu;
mod loaded;
mod logits;
mod prefill;
mod reference;
mod sampling;
pub(super) mod shapes;
mod strictness;

use std::process::Command;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::device::Device;
use super::engine::{Engine, page_bytes};
use super::geometry::Machine;
use super::weights::Weights;
use crate::model::backend::{Backend, Feed, Outcome, PAGE, PageId, Then};
use crate::speculation::TokenId;
use emulated::Emulated;

/// A GPU that is small enough for tiny models to need all that a large one needs: groups that go round the blocks,
/// contexts that are split, activations in phases.
const SMALL: Machine = Machine { multiprocessors: 7, shared: 99 << 10, capability: 90 };

/// Pages of a test's cache.
const PAGES: usize = 80;

/// A model on a device.
struct Rig<D: Device> {
    engine: Engine<D>,
    rng: StdRng,
}

impl Rig<Emulated> {
    /// On an emulated GPU whose cache begins as NaN.
    fn new(weights: &Weights, reverse: bool) -> Self {
        Self::on(Emulated::new(SMALL, Engine::<Emulated>::shape(weights), reverse), weights)
    }

    /// On one with a library for products.
    fn with_library(weights: &Weights, reverse: bool) -> Self {
        Self::on(Emulated::with_library(SMALL, Engine::<Emulated>::shape(weights), reverse), weights)
    }

    fn on(device: Emulated, weights: &Weights) -> Self {
        let mut engine = Engine::new(device, weights, (PAGES + 1) * page_bytes(&weights.config)).unwrap();
        engine.device().poison_last_allocation();
        Self { engine, rng: StdRng::seed_from_u64(5) }
    }
}

impl<D: Device> Rig<D> {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Vec<Outcome> {
        self.engine.step(feeds, &mut self.rng).unwrap()
    }

    fn logits(&mut self, pages: &[PageId], start: usize, tokens: &[TokenId]) -> Vec<f32> {
        match self.step(&[Feed { pages, start, tokens, then: Then::Logits }]).pop() {
            Some(Outcome::Logits(logits)) => logits,
            _ => panic!("no logits"),
        }
    }
}

/// Runs an ignored test in a process of its own, where no other test has loaded anything.
pub(super) fn passes_alone(name: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", "--ignored", "--nocapture", name]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{more}");
}

/// Pages of the `index`th of several sequences, which lie scattered.
fn scattered(index: usize, positions: usize, sequences: usize) -> Vec<PageId> {
    (0..positions.div_ceil(PAGE)).map(|page| (PAGES - 1 - (page * sequences + index)) as PageId).collect()
}

/// ‖found − wanted‖ / ‖wanted‖.
fn relative_error(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let square = |value: f64| value * value;
    let off: f64 = found.iter().zip(wanted).map(|(found, wanted)| square(f64::from(*found) - wanted)).sum();
    (off / wanted.iter().map(|wanted| square(*wanted)).sum::<f64>()).sqrt()
}
