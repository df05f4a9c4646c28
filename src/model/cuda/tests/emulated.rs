//! A GPU on the host: kernels are compiled by g++ against `tests/emulator/device.cpp` and called as they are launched.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::Library;
use libloading::os::unix::{Library as RawLibrary, RTLD_GLOBAL, RTLD_NOW};

use crate::model::cuda::device::{Address, Argument, Device, Launch, Multiply, MultiplyShape};
use crate::model::cuda::geometry::Machine;
use crate::model::cuda::library::{self, WORKSPACE};
use crate::model::cuda::source::{self, Kernel, ModuleId, Shape};
use crate::model::error::ModelError;

const DEVICE: &str = include_str!("../../../../tests/emulator/device.cpp");

const PRODUCTS: &str = include_str!("../../../../tests/emulator/products.cpp");

/// `emulator::Launch`.
#[repr(C)]
struct Call {
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    reverse: u32,
    arguments: *mut *mut c_void,
    error: *mut c_char,
    error_size: usize,
}

pub(super) struct Emulated {
    machine: Machine,
    shape: Shape,
    /// Whether blocks and threads run in reverse order.
    reverse: bool,
    memory: Vec<Box<[u128]>>,
    modules: HashMap<ModuleId, Library>,
    /// What does the products of long passes, if there is to be one.
    products: Products,
    /// What the kernel before wrote.
    written: Vec<(Address, usize)>,
    /// Kernels that ran.
    pub(super) launches: usize,
    /// Rows of the products that the library did.
    pub(super) multiplied: Vec<usize>,
}

/// Whether there is a library for products: one in the host's memory, `tests/emulator/products.cpp`.
enum Products {
    Absent,
    Installed,
    Prepared(library::Library),
}

impl Emulated {
    pub(super) fn new(machine: Machine, shape: Shape, reverse: bool) -> Self {
        let (memory, modules, written, multiplied) = Default::default();
        let products = Products::Absent;
        Self { machine, shape, reverse, memory, modules, products, written, launches: 0, multiplied }
    }

    /// With a library for products.
    pub(super) fn with_library(machine: Machine, shape: Shape, reverse: bool) -> Self {
        FakeProducts::load();
        Self { products: Products::Installed, ..Self::new(machine, shape, reverse) }
    }

    /// Fills the memory that was allocated last with NaN.
    pub(super) fn poison_last_allocation(&mut self) {
        self.memory.last_mut().unwrap().fill(u128::MAX);
    }

    fn module(&mut self, module: ModuleId) -> &Library {
        let (shape, machine) = (&self.shape, &self.machine);
        self.modules.entry(module).or_insert_with(|| {
            let kernels: Vec<_> = module.kernels().into_iter().map(Kernel::name).collect();
            library(&source::source(module, shape, machine), &kernels)
        })
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), ModelError> {
        let (reverse, written) = (self.reverse, std::mem::replace(&mut self.written, launch.writes.clone()));
        self.launches += 1;
        let library = self.module(launch.kernel.module());
        call(library, launch.kernel.name(), launch, &written, reverse).map_err(ModelError::Cuda)
    }
}

/// The library for products in the host's memory, loaded under the name of the real one for good.
pub(super) struct FakeProducts(RawLibrary);

impl FakeProducts {
    pub(super) fn load() -> Self {
        let library = compile(PRODUCTS, &["-Wl,-soname,libcublasLt.so"]);
        // SAFETY: the library is the one just built from our sources. Whoever found it once keeps its functions.
        unsafe {
            std::mem::forget(RawLibrary::open(Some(&library), RTLD_NOW | RTLD_GLOBAL).unwrap());
            Self(RawLibrary::open(Some(library), RTLD_NOW | RTLD_GLOBAL).unwrap())
        }
    }

    /// Has it take no product, or any.
    pub(super) fn refuse(&self, whether: bool) {
        // SAFETY: `products.cpp` defines the function so.
        unsafe { self.0.get::<unsafe extern "C" fn(c_int)>(b"fake_products_refuse").unwrap()(whether.into()) }
    }

    /// Handles and descriptions that were not destroyed.
    pub(super) fn live(&self) -> i32 {
        // SAFETY: the same.
        unsafe { self.0.get::<unsafe extern "C" fn() -> c_int>(b"fake_products_live").unwrap()() }
    }
}

/// Calls a kernel of a library as a launch says, but for its name.
pub(super) fn call(
    library: &Library,
    name: &str,
    launch: &Launch,
    written: &[(Address, usize)],
    reverse: bool,
) -> Result<(), String> {
    let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(Argument::bytes).collect();
    let mut error = [0; 256];
    let call = Call {
        grid: launch.grid.map(|blocks| blocks as u32),
        threads: launch.threads as u32,
        shared: launch.shared as u32,
        reverse: reverse.into(),
        arguments: arguments.as_mut_ptr(),
        error: error.as_mut_ptr(),
        error_size: error.len(),
    };
    // SAFETY: `device.cpp` defines these functions with these types. Arguments are those of the kernel's parameters,
    // of the same sizes, and outlive the call; addresses are of memory that the caller owns.
    let status = unsafe {
        let pending = library.get::<unsafe extern "C" fn(*mut u8, usize)>(b"emulator_pending").unwrap();
        pending(std::ptr::null_mut(), 0);
        written.iter().for_each(|(place, bytes)| pending(place.0 as *mut u8, *bytes));
        let emulate = library.get::<unsafe extern "C" fn(*const Call) -> c_int>(format!("emulate_{name}").as_bytes());
        emulate.unwrap()(&raw const call)
    };
    // SAFETY: the emulator ends what it writes with 0, and the buffer began as zeros.
    let said = unsafe { CStr::from_ptr(error.as_ptr()) };
    if status == 0 { Ok(()) } else { Err(format!("{name}: {}", said.to_string_lossy())) }
}

/// Builds and loads a library of kernels from their source.
pub(super) fn library(source: &str, kernels: &[&str]) -> Library {
    let exports: String = kernels.iter().map(|name| format!("EXPORT({name})\n")).collect();
    let path = compile(&format!("{DEVICE}\n{source}\n{exports}"), &[]);
    // SAFETY: the library is the one just built from our sources; loading it runs nothing but the initialisation of its
    // static variables.
    unsafe { Library::new(path) }.unwrap()
}

/// Builds a library from a source, with more options than usual, unless it is there from an earlier run.
pub(super) fn compile(text: &str, more: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (text, more).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/emulator");
    let library = folder.join(format!("{:016x}.so", hasher.finish()));
    if library.exists() {
        return library;
    }
    std::fs::create_dir_all(&folder).unwrap();
    let work = tempfile::tempdir_in(&folder).unwrap();
    let (source, partial) = (work.path().join("kernels.cpp"), work.path().join("kernels.so"));
    std::fs::write(&source, text).unwrap();
    let options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-o"];
    let output = Command::new("g++").args(options).arg(&partial).args(more).arg(&source).output().expect("g++");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(partial, &library).unwrap();
    library
}

impl Device for Emulated {
    type Graph = Vec<Launch>;

    fn machine(&self) -> Machine {
        self.machine
    }

    fn free(&self) -> Result<usize, ModelError> {
        Ok(1 << 30)
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, ModelError> {
        self.memory.push(vec![0u128; bytes.div_ceil(16)].into_boxed_slice());
        Ok(Address(self.memory.last().unwrap().as_ptr() as u64))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), ModelError> {
        // SAFETY: callers upload to what they allocated, which this keeps, and not beyond its end.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), ModelError> {
        // SAFETY: as for an upload.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn prepare(&mut self, shapes: &[MultiplyShape]) -> Result<(), ModelError> {
        if let Products::Absent = self.products {
            return Err(ModelError::Cuda("no library for products".into()));
        }
        let mut library = library::Library::open()?;
        shapes.iter().try_for_each(|shape| library.prepare(*shape))?;
        library.work_in(self.allocate(WORKSPACE)?);
        self.products = Products::Prepared(library);
        Ok(())
    }

    fn multiply(&mut self, product: &Multiply) -> Result<(), ModelError> {
        let Products::Prepared(library) = &self.products else {
            return Err(ModelError::Cuda("nothing was prepared".into()));
        };
        self.multiplied.push(product.shape.rows);
        library.multiply(product, std::ptr::null_mut())
    }

    fn run(&mut self, launches: &[Launch]) -> Result<(), ModelError> {
        // The first kernel after an upload waits for all before it.
        self.written.clear();
        launches.iter().try_for_each(|launch| self.launch(launch))
    }

    fn record(&mut self, launches: Vec<Launch>) -> Result<Vec<Launch>, ModelError> {
        Ok(launches)
    }

    fn replay(&mut self, graph: &Vec<Launch>) -> Result<(), ModelError> {
        self.run(graph)
    }
}
