//! What the host asks of the driver, told to a driver that computes nothing.

use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::emulated::{FakeProducts, compile};
use super::{Rig, passes_alone, shapes};
use crate::model::backend::{Backend as _, Feed, Outcome, PageId, Then};
use crate::model::cuda::compiler::tests::nvrtc_folder;
use crate::model::cuda::driver::Gpu;
use crate::model::cuda::engine::{Engine, page_bytes};
use crate::model::cuda::libraries::CudaOptions;
use crate::model::sample::DraftSampling;
use crate::model::{BenchModel, CudaBench, KnownShape, ModelError};

const DRIVER: &str = include_str!("../../../../tests/emulator/driver.cpp");

/// The driver that computes nothing, loaded under the name of the real one.
struct Fake(Library);

impl Fake {
    fn load() -> Self {
        let library = compile(DRIVER, &["-Wl,-soname,libcuda.so"]);
        // SAFETY: the library is the one just built from our sources.
        Self(unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) }.unwrap())
    }

    /// What it was asked since the last time, a line each.
    fn noted(&self) -> Vec<String> {
        let mut text = vec![0u8; 1 << 20];
        // SAFETY: `driver.cpp` defines the function so, and writes no more than it is told.
        let length = unsafe {
            let noted = self.0.get::<unsafe extern "C" fn(*mut u8, usize) -> usize>(b"fake_noted").unwrap();
            noted(text.as_mut_ptr(), text.len())
        };
        String::from_utf8_lossy(&text[..length]).lines().map(str::to_owned).collect()
    }
}

/// With NVRTC and no other library.
fn options(ordinal: usize, folder: &Path) -> CudaOptions {
    let libraries = folder.join("libraries");
    std::fs::create_dir_all(&libraries).unwrap();
    for file in std::fs::read_dir(nvrtc_folder()).unwrap().map(Result::unwrap) {
        let place = libraries.join(file.file_name());
        if file.file_name().to_string_lossy().starts_with("libnvrtc") && !place.exists() {
            std::os::unix::fs::symlink(file.path(), place).unwrap();
        }
    }
    CudaOptions { ordinal, libraries: Some(libraries), binaries: Some(folder.join("binaries")) }
}

fn draft(rig: &mut Rig<Gpu>, steps: usize) {
    let sampling = DraftSampling::new(steps, 1.0);
    let then = Then::Draft { sampling: &sampling, at_most: steps };
    match rig.step(&[Feed { pages: &[3], start: 2, tokens: &[5], then }]).as_slice() {
        [Outcome::Drafts(drafts)] => assert_eq!(drafts.len(), steps),
        _ => panic!("no drafts"),
    }
}

#[test]
fn drafting_costs_an_upload_a_graph_and_a_download_however_many_tokens() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let weights = shapes::tiny_llama();
    let gpu = Gpu::open(&options(0, folder.path()), Engine::<Gpu>::shape(&weights)).unwrap();
    let engine = Engine::new(gpu, &weights, 4 * page_bytes(&weights.config)).unwrap();
    let mut rig = Rig { engine, rng: StdRng::seed_from_u64(1) };
    for steps in [1, 4, 8] {
        draft(&mut rig, steps);
        fake.noted();
        draft(&mut rig, steps);
        let kernels = 1 + steps * (5 * weights.config.layers + 2);
        // All but the first start while the one before runs.
        let graph = format!("graph of {kernels}, {} chained", kernels - 1);
        assert_eq!(fake.noted(), ["upload", &graph, "download", "synchronize"]);
    }
    // Without a library for products, however long a context is.
    assert_eq!(rig.engine.rows_at_once(), 64);
    // Reading a context waits for nothing, and all of it is chained but what follows an upload.
    rig.step(&[Feed { pages: &[0, 1], start: 0, tokens: &[1; 20], then: Then::Nothing }]);
    fake.noted();
    rig.step(&[Feed { pages: &[0, 1], start: 0, tokens: &[1; 20], then: Then::Nothing }]);
    let noted = fake.noted();
    assert_eq!(noted[..3], ["upload", "launch of embed", "chained launch of qkv"]);
    assert!(noted[2..].iter().all(|line| line.starts_with("chained")), "{noted:?}");
    // Graphs go before the context that they belong to, and everything goes.
    drop(rig);
    let end = fake.noted();
    assert!(end.iter().any(|line| line == "destroy graph") && !end.iter().any(|line| line.contains("late")), "{end:?}");
    assert_eq!(end.last().unwrap(), "release");
}

#[test]
fn a_long_context_is_an_upload_and_kernels_between_products() {
    // The driver first, for the library to tell it what it is asked for.
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let products = FakeProducts::load();
    let (before, weights) = (products.live(), shapes::tiny_llama());
    let gpu = Gpu::open(&options(0, folder.path()), Engine::<Gpu>::shape(&weights)).unwrap();
    let engine = Engine::new(gpu, &weights, 40 * page_bytes(&weights.config)).unwrap();
    assert_eq!(engine.rows_at_once(), 512);
    let mut rig = Rig { engine, rng: StdRng::seed_from_u64(1) };
    let pages: Vec<PageId> = (0..32).collect();
    let feed = || Feed { pages: &pages, start: 0, tokens: &[1; 500], then: Then::Nothing };
    rig.step(&[feed()]);
    fake.noted();
    rig.step(&[feed()]);
    let layer = [
        "launch of norm_rows",
        "product of 512 rows",
        "launch of store_heads",
        "chained launch of attend_rows",
        "product of 512 rows",
        "launch of norm_rows",
        "product of 512 rows",
        "launch of silu_rows",
        "product of 512 rows",
    ];
    let mut wanted = vec!["upload", "launch of embed", "chained launch of norm_rows"];
    wanted.extend(&layer[1..]);
    wanted.extend(&layer);
    assert_eq!(fake.noted(), wanted);
    draft(&mut rig, 2);
    drop(rig);
    assert_eq!((fake.noted().last().unwrap().as_str(), products.live()), ("release", before));
}

#[test]
fn kernels_that_were_compiled_before_are_loaded_from_disk() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let weights = shapes::tiny_llama();
    let modified = || -> Vec<_> {
        let files = std::fs::read_dir(folder.path().join("binaries")).unwrap().map(|file| file.unwrap());
        files.map(|file| file.metadata().unwrap().modified().unwrap()).collect()
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let gpu = Gpu::open(&options(0, folder.path()), Engine::<Gpu>::shape(&weights)).unwrap();
        let engine = Engine::new(gpu, &weights, 4 * page_bytes(&weights.config)).unwrap();
        draft(&mut Rig { engine, rng: StdRng::seed_from_u64(1) }, 2);
        seen.push(modified());
    }
    // The module of narrow products, and that of the rest; written once.
    assert_eq!(seen[0].len(), 2);
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn the_benchmark_measures_what_fits() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let model = BenchModel::Shape(KnownShape::SmolLm2);
    let mut bench = CudaBench::open(model, 1 << 20, &options(0, folder.path())).unwrap();
    // This driver has 224 MiB to give, and says that copies take a millisecond, however many.
    let cache = bench.copy_bandwidth() / 1e3 / 20.0;
    let page = 2.0 * 16.0 * 192.0 * 30.0 * 2.0;
    assert!(cache <= 224.0 * 1024.0 * 1024.0 && cache > 224.0 * 1024.0 * 1024.0 - 2.0 * page, "{cache}");
    let measured = bench.measure(4, 512, 4, 2).unwrap();
    let share = measured.bytes_per_step / (measured.micros_per_step / 1e6) / bench.copy_bandwidth();
    assert!(measured.micros_per_step > 0.0 && (measured.share_of_copy / share - 1.0).abs() < 1e-9);
    assert!(matches!(bench.measure(64, 16_384, 4, 2), Err(ModelError::Unsupported(_))));
}

#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let shape = Engine::<Gpu>::shape(&shapes::tiny_llama());
    assert!(matches!(Gpu::open(&options(3, folder.path()), shape), Err(ModelError::Cuda(_))));
}

#[test]
fn a_cache_that_does_not_fit_is_an_error() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let weights = shapes::tiny_llama();
    let gpu = Gpu::open(&options(0, folder.path()), Engine::<Gpu>::shape(&weights)).unwrap();
    let none = page_bytes(&weights.config);
    assert!(matches!(Engine::new(gpu, &weights, none), Err(ModelError::Cuda(_))));
}

#[test]
fn without_a_driver_there_is_an_error_and_no_panic() {
    passes_alone("model::cuda::tests::driver::opening_says_that_there_is_no_driver");
}

#[test]
#[ignore = "run by the test above, where there is no driver"]
fn opening_says_that_there_is_no_driver() {
    let shape = Engine::<Gpu>::shape(&shapes::tiny_llama());
    match Gpu::open(&CudaOptions::default(), shape) {
        Err(error) => assert!(error.to_string().starts_with("CUDA: "), "{error}"),
        Ok(_) => println!("there is a GPU here"),
    }
}
