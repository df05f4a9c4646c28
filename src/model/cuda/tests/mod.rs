//! Tests of the backend with its kernels emulated on the host: the same sources, launches and packed bytes as on a GPU.

mod drafts;
mod driver;
mod emulated;
mod gpu;
mod loaded;
mod logits;
mod reference;
mod sampling;
pub(super) mod shapes;
mod strictness;

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
const PAGES: usize = 64;

/// A model on a device.
struct Rig<D: Device> {
    engine: Engine<D>,
    rng: StdRng,
}

impl Rig<Emulated> {
    /// On an emulated GPU whose cache begins as NaN.
    fn new(weights: &Weights, reverse: bool) -> Self {
        let device = Emulated::new(SMALL, Engine::<Emulated>::shape(weights), reverse);
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
