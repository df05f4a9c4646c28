//! What the host asks of the driver, told to a driver that computes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

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
use crate::model::fixture::TinyLlama;
use crate::model::sample::DraftSampling;
use crate::model::{
    Cell, Device, DeviceChoice, DraftBench, DraftModel, KnownShape, Misfit, ModelError, ModelOptions, ModelSource,
};

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

    /// Has it say that it has so many bytes free, or that it is of a compute capability of so much.
    fn pretend(&self, what: &[u8], value: usize) {
        // SAFETY: `driver.cpp` defines the functions so.
        unsafe { self.0.get::<unsafe extern "C" fn(usize)>(what).unwrap()(value) }
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

const SMOLLM2: ModelSource = ModelSource::Random(KnownShape::SmolLm2);

fn model_options(device: DeviceChoice, binaries: &Path) -> ModelOptions {
    ModelOptions { device, cuda: options(0, binaries), ..ModelOptions::default() }
}

#[test]
fn the_benchmark_measures_what_fits() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    fake.pretend(b"fake_free", 512 << 20);
    let cells = [(4, 512, 8), (64, 4096, 4), (1, 16_384, 1)];
    let cells = cells.map(|(batch, context, length)| Cell { batch, context, length });
    let mut bench =
        DraftBench::open(&SMOLLM2, &model_options(DeviceChoice::Cuda, folder.path()), None, &cells, 0).unwrap();
    assert_eq!(bench.device(), &Device::Cuda { name: "a driver that computes nothing".into() });
    // This driver says that copies take a millisecond, however many, and has 32 MiB less to give than it has.
    let cache = bench.copy_bandwidth() / 1e3 / 20.0;
    let page = 2.0 * 16.0 * 192.0 * 30.0 * 2.0;
    assert!(cache <= 480.0 * 1024.0 * 1024.0 && cache > 480.0 * 1024.0 * 1024.0 - 2.0 * page, "{cache}");
    // 134.5 million weights of two bytes, less a few norms.
    assert!((bench.weight_bytes() / 2.0 / 134.5e6 - 1.0).abs() < 1e-3);
    let measured = bench.measure(cells[0], 3, Duration::from_secs(60)).unwrap();
    assert_eq!(measured.bytes_per_step - bench.weight_bytes(), page / 16.0 * 4.0 * (512.0 + 3.5));
    let share = measured.bytes_per_step / (measured.micros_per_step / 1e6) / bench.copy_bandwidth();
    assert!(measured.rounds == 3 && (measured.share_of_copy / share - 1.0).abs() < 1e-9);
    assert!(matches!(bench.misfit(cells[1]), Some(Misfit::Memory { .. })));
    assert_eq!(bench.misfit(cells[2]), Some(Misfit::Positions { limit: 8192 }));
}

#[test]
fn a_gpu_that_works_runs_the_model_once_before_anyone_relies_on_it() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    fake.pretend(b"fake_free", 2 << 30);
    let loaded = DraftModel::load(&SMOLLM2, &model_options(DeviceChoice::Auto, folder.path())).unwrap();
    let noted = fake.noted();
    // Every module is compiled and loaded, and drafting works.
    assert_eq!(noted.iter().filter(|line| *line == "load module").count(), 5);
    assert!(noted.iter().any(|line| line.starts_with("graph of")), "{noted:?}");
    let model = loaded.spawn().unwrap();
    assert_eq!((model.device().kind(), model.fallback()), ("cuda", None));
    assert_eq!(model.max_positions(), 8192);
}

/// Why `auto` takes the CPU; `cuda` must fail for the same reason.
fn refused(binaries: &Path, libraries: Option<PathBuf>) -> (&'static str, String) {
    let options = |device| {
        let options = model_options(device, binaries);
        let cuda = CudaOptions { libraries: libraries.clone().or(options.cuda.libraries), ..options.cuda };
        ModelOptions { cuda, ..options }
    };
    let error = DraftModel::load(&SMOLLM2, &options(DeviceChoice::Cuda)).unwrap_err();
    let loaded = DraftModel::load(&SMOLLM2, &options(DeviceChoice::Auto)).unwrap();
    let (device, fallback) = (loaded.device, loaded.fallback.unwrap());
    assert_eq!((device, error.gpu_fault()), (Device::Cpu, Some(fallback.reason)));
    assert_eq!(fallback.explanation, error.to_string());
    (fallback.reason, fallback.explanation)
}

#[test]
fn a_gpu_that_is_too_old_is_not_used() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    fake.pretend(b"fake_major", 7);
    let explanation = "the GPU is too old: it is an sm_70, and sm_80 or later is needed".to_owned();
    assert_eq!(refused(folder.path(), None), ("architecture", explanation));
}

#[test]
fn a_gpu_whose_memory_is_taken_is_not_used() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    fake.pretend(b"fake_free", 100 << 20);
    let text = "the GPU's memory is too small: the weights take 256 MiB, and 100 MiB are free";
    assert_eq!(refused(folder.path(), None), ("memory", text.to_owned()));
    // This driver gives what it does not have, so that the weights fit and little else does.
    fake.pretend(b"fake_free", 260 << 20);
    fake.pretend(b"fake_taken", 200 << 20);
    let (reason, explanation) = refused(folder.path(), None);
    assert_eq!(reason, "memory");
    assert!(explanation.ends_with("tokens fit beside the weights"), "{explanation}");
}

#[test]
fn a_gpu_whose_compiler_is_missing_is_not_used() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let (reason, explanation) = refused(folder.path(), Some(folder.path().to_owned()));
    assert_eq!(reason, "compiler");
    assert!(explanation.contains("libnvrtc"), "{explanation}");
}

#[test]
fn a_model_that_the_kernels_do_not_take_runs_on_the_cpu() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let loaded = TinyLlama::random(1).load(&model_options(DeviceChoice::Auto, folder.path()));
    let fallback = loaded.fallback.unwrap();
    assert_eq!((loaded.device, fallback.reason), (Device::Cpu, "model"));
    assert_eq!(fallback.explanation, "unsupported draft model: heads of 16 elements: not on a GPU");
}

#[tokio::test]
async fn a_step_that_fails_ends_the_model_and_is_counted() {
    let (fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    fake.pretend(b"fake_free", 2 << 30);
    let loaded = DraftModel::load(&SMOLLM2, &model_options(DeviceChoice::Cuda, folder.path())).unwrap();
    let model = loaded.spawn().unwrap();
    let mut sequence = model.sequence();
    assert_eq!(sequence.draft(&[1, 2], DraftSampling::new(4, 1.0)).await.unwrap().len(), 4);
    assert_eq!(model.failures(), 0);
    fake.pretend(b"fake_fail", 1);
    let failed = sequence.draft(&[1, 2, 3], DraftSampling::new(4, 1.0)).await;
    assert!(matches!(failed, Err(ModelError::Stopped)));
    assert_eq!(model.failures(), 1);
}

#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let shape = Engine::<Gpu>::shape(&shapes::tiny_llama());
    assert!(matches!(Gpu::open(&options(3, folder.path()), shape), Err(ModelError::NoGpu(_))));
}

#[test]
fn a_cache_that_does_not_fit_is_an_error() {
    let (_fake, folder) = (Fake::load(), tempfile::tempdir().unwrap());
    let weights = shapes::tiny_llama();
    let gpu = Gpu::open(&options(0, folder.path()), Engine::<Gpu>::shape(&weights)).unwrap();
    let none = page_bytes(&weights.config);
    assert!(matches!(Engine::new(gpu, &weights, none), Err(ModelError::GpuMemory(_))));
}

#[test]
fn without_a_driver_there_is_an_error_and_no_panic() {
    passes_alone("model::cuda::tests::driver::opening_says_that_there_is_no_driver");
}

#[test]
#[ignore = "run by the test above, where there is no driver"]
fn opening_says_that_there_is_no_driver() {
    let options = |device| ModelOptions { device, ..ModelOptions::default() };
    match DraftModel::load(&SMOLLM2, &options(DeviceChoice::Cuda)) {
        Err(ModelError::NoGpu(text)) => assert!(!text.is_empty()),
        other => return println!("there is a GPU here: {other:?}"),
    }
    let loaded = DraftModel::load(&SMOLLM2, &options(DeviceChoice::Auto)).unwrap();
    assert_eq!((loaded.device, loaded.fallback), (Device::Cpu, None));
}
