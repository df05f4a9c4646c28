//! What only a GPU can show. `tests/gpu/run.sh` runs these on a machine that has one.

use std::path::PathBuf;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::shapes::{Extras, random};
use super::{Rig, drafts, reference, relative_error, shapes};
use crate::model::backend::{Backend as _, PAGE, PageId};
use crate::model::cuda::driver::Gpu;
use crate::model::cuda::engine::{Engine, page_bytes};
use crate::model::cuda::weights::Weights;
use crate::model::{CudaOptions, KnownShape, ModelSource};

const POSITIONS: usize = 2000;

fn options() -> CudaOptions {
    CudaOptions { libraries: std::env::var_os("SIDEDRAFT_CUDA_LIBRARIES").map(PathBuf::from), ..CudaOptions::default() }
}

fn rig(weights: &Weights, positions: usize) -> Rig<Gpu> {
    let gpu = Gpu::open(&options(), Engine::<Gpu>::shape(weights)).unwrap();
    let cache = (positions / PAGE + 2) * page_bytes(&weights.config);
    Rig { engine: Engine::new(gpu, weights, cache).unwrap(), rng: StdRng::seed_from_u64(5) }
}

#[test]
#[ignore = "needs a GPU"]
fn drafts_follow_the_model() {
    for weights in [shapes::tiny_llama(), shapes::tiny_qwen2(), shapes::tiny_qwen3()] {
        drafts::several_sequences_follow(&weights, &mut rig(&weights, POSITIONS));
    }
}

#[test]
#[ignore = "needs a GPU"]
fn two_thousand_positions_agree_with_the_reference() {
    let weights = match std::env::var_os("SIDEDRAFT_GPU_MODEL") {
        Some(folder) => Weights::load(&ModelSource::HuggingFace(folder.into())).unwrap(),
        None => shapes::middling(),
    };
    let tokens = shapes::tokens(POSITIONS, 1, &weights.config);
    let wanted = reference::logits(&weights, &tokens);
    let rounded = reference::logits_of_rounded_cache(&weights, &tokens);
    let mut rig = rig(&weights, POSITIONS);
    let pages: Vec<PageId> = (0..POSITIONS.div_ceil(PAGE) as PageId).rev().collect();
    let (mut worst, mut agree, mut agree_rounded) = (0.0f64, 0, 0);
    for (position, (wanted, rounded)) in wanted.iter().zip(&rounded).enumerate() {
        let logits = rig.logits(&pages, position, &tokens[position..][..1]);
        worst = worst.max(relative_error(&logits, wanted));
        let found: Vec<f64> = logits.into_iter().map(f64::from).collect();
        agree += usize::from(likeliest(&found) == likeliest(wanted));
        agree_rounded += usize::from(likeliest(&found) == likeliest(rounded));
    }
    println!("{POSITIONS} positions one by one: largest relative error {worst:.2e}, the likeliest token agrees");
    println!("with the reference at {agree}, with a reference whose cache is in bfloat16 at {agree_rounded}");
    assert!(worst < 1e-2);
    assert!(agree_rounded * 100 >= POSITIONS * 99);
    // The whole context at once, in passes as long as the libraries allow.
    let last = rig.logits(&pages, 0, &tokens);
    let error = relative_error(&last, wanted.last().unwrap());
    println!("{POSITIONS} positions, {} in a pass: relative error {error:.2e}", rig.engine.rows_at_once());
    assert!(error < 2e-2);
}

fn likeliest(logits: &[f64]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap()
}

#[test]
#[ignore = "needs a GPU"]
fn what_reading_costs() {
    const LONGEST: usize = 8192;
    let extras = Extras { head_norms: true, ..Extras::default() };
    let weights = random(KnownShape::Qwen3.config(), extras, &mut StdRng::seed_from_u64(1));
    let mut rig = rig(&weights, LONGEST);
    let tokens = shapes::tokens(LONGEST, 1, &weights.config);
    let pages: Vec<PageId> = (0..LONGEST.div_ceil(PAGE) as PageId).collect();
    println!("Qwen3-0.6B shape, random weights, {} rows in a pass", rig.engine.rows_at_once());
    println!("| prompt | ms until the logits after it | tokens a second |");
    println!("|---|---|---|");
    for length in [64, 512, 2048, LONGEST] {
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let start = Instant::now();
                rig.logits(&pages, 0, &tokens[..length]);
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("| {length} | {:.1} | {:.0} |", times[3] * 1e3, length as f64 / times[3]);
    }
}
