//! A GPU through CUDA's driver interface.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::{result, sys};

use super::binaries::Binaries;
use super::compiler::Compiler;
use super::device::{Address, Argument, Device, Launch, Multiply, MultiplyShape};
use super::geometry::Machine;
use super::libraries::{CudaOptions, preload};
use super::library::{Library, WORKSPACE};
use super::source::{self, Kernel, ModuleId, Shape};
use crate::model::error::ModelError;

/// Bytes of host memory that the GPU can copy from, and to, by itself.
const STAGING: usize = 8 << 20;
/// Shared memory that a kernel has without asking.
const PLAIN_SHARED: usize = 48 << 10;
/// The first compute capability that has all that the kernels use.
const OLDEST: usize = 80;
/// The first compute capability on which kernels of a stream can overlap.
const CHAINING: usize = 90;

/// A GPU, its stream, what was allocated and loaded.
pub(super) struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Signals that the last upload was copied from `staging`.
    copied: sys::CUevent,
    staging: *mut u8,
    memory: Vec<sys::CUdeviceptr>,
    modules: HashMap<ModuleId, sys::CUmodule>,
    functions: HashMap<Kernel, sys::CUfunction>,
    /// For products of long passes, once it was asked for.
    library: Option<Library>,
    machine: Machine,
    shape: Shape,
    compiler: Compiler,
    binaries: Binaries,
}

// SAFETY: the handles and the pinned memory belong to this value alone, and CUDA's handles may be used from any thread
// on which the context is current; every method makes it so first.
unsafe impl Send for Gpu {}

/// A recorded sequence of launches.
pub(super) struct Graph(sys::CUgraphExec);

// SAFETY: the handle belongs to this value alone, and may be used from any thread.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated once, destroyed once. There is nothing to do about an error.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// A GPU that the kernels are made for, and their compiler.
pub(super) struct Found {
    device: sys::CUdevice,
    machine: Machine,
    compiler: Compiler,
    /// As the driver calls it.
    pub(super) name: String,
}

/// Looks for a GPU. Takes none of its memory.
///
/// # Errors
/// [`ModelError::NoGpu`] where there is no driver or no such GPU, [`ModelError::OldGpu`], [`ModelError::Compiler`] where
/// there is no NVRTC, and [`ModelError::Cuda`].
pub(super) fn find(options: &CudaOptions) -> Result<Found, ModelError> {
    // SAFETY: looks for the driver's library by its names, and loads it.
    if !unsafe { sys::is_culib_present() } {
        return Err(ModelError::NoGpu("no driver (libcuda) is installed".into()));
    }
    result::init().map_err(failed)?;
    let ordinal = i32::try_from(options.ordinal).unwrap_or(i32::MAX);
    let device = result::device::get(ordinal).map_err(failed)?;
    let name = result::device::get_name(device).map_err(failed)?;
    let machine = machine(device)?;
    if machine.capability < OLDEST {
        return Err(ModelError::OldGpu { found: machine.capability, needed: OLDEST });
    }
    if let Some(folder) = &options.libraries {
        preload(folder).map_err(|error| ModelError::Compiler(error.to_string()))?;
    }
    Ok(Found { device, machine, compiler: Compiler::new()?, name })
}

impl Gpu {
    /// Opens a GPU for a model of a shape.
    ///
    /// # Errors
    /// Those of [`find`].
    pub(super) fn open(options: &CudaOptions, shape: Shape) -> Result<Self, ModelError> {
        let Found { device, machine, compiler, .. } = find(options)?;
        // SAFETY: the device was just got; what is retained is released when this value is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        let mut gpu = Self {
            device,
            context,
            stream: std::ptr::null_mut(),
            copied: std::ptr::null_mut(),
            staging: std::ptr::null_mut(),
            memory: Vec::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            library: None,
            machine,
            shape,
            compiler,
            binaries: Binaries::new(options.binaries.as_deref()),
        };
        gpu.enter()?;
        gpu.stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
        gpu.copied = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(failed)?;
        // SAFETY: the context is current; the memory is freed when this value is dropped.
        gpu.staging = unsafe { result::malloc_host(STAGING, 0) }.map_err(failed)?.cast();
        Ok(gpu)
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), ModelError> {
        // SAFETY: the context is retained as long as this value lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed)
    }

    /// Waits for all work.
    fn finish(&self) -> Result<(), ModelError> {
        // SAFETY: the stream was created and not destroyed.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed)
    }

    /// Compiles and loads what a kernel is in, the first time.
    fn load(&mut self, kernel: Kernel) -> Result<sys::CUfunction, ModelError> {
        if let Some(function) = self.functions.get(&kernel) {
            return Ok(*function);
        }
        let id = kernel.module();
        let module = match self.modules.get(&id) {
            Some(module) => *module,
            None => {
                let source = source::source(id, &self.shape, &self.machine);
                let capability = self.machine.capability;
                let compile = || self.compiler.compile(&source, capability);
                let binary = self.binaries.get(&self.compiler.key(&source, capability), compile)?;
                // SAFETY: the context is current, and the binary is one that NVRTC made for this GPU.
                let module = unsafe { result::module::load_data(binary.as_ptr().cast()) }.map_err(failed)?;
                self.modules.insert(id, module);
                module
            }
        };
        let name = CString::new(kernel.name()).map_err(|error| ModelError::Cuda(error.to_string()))?;
        // SAFETY: the module is loaded as long as this value lives.
        let function = unsafe { result::module::get_function(module, name) }.map_err(failed)?;
        use sys::CUfunction_attribute as Attribute;
        // A multiprocessor takes a kernel beside another only if both want its memory divided in the same way.
        let mut attributes = vec![(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)];
        if matches!(kernel, Kernel::Attend | Kernel::AttendRows | Kernel::Product(..))
            && self.machine.shared > PLAIN_SHARED
        {
            attributes.push((Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, self.machine.shared as i32));
        }
        for (attribute, value) in attributes {
            // SAFETY: the function was just got.
            unsafe { result::function::set_function_attribute(function, attribute, value) }.map_err(failed)?;
        }
        self.functions.insert(kernel, function);
        Ok(function)
    }

    /// Starts kernels, each but the first while the one before still runs, where the GPU can.
    fn start(&mut self, launches: &[Launch]) -> Result<(), ModelError> {
        for (index, launch) in launches.iter().enumerate() {
            let function = self.load(launch.kernel)?;
            let mut arguments: Vec<*mut c_void> = launch.arguments.iter().map(Argument::bytes).collect();
            let mut chained = sys::CUlaunchAttribute {
                id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                pad: [0; 4],
                value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            };
            let [x, y, z] = launch.grid.map(|blocks| blocks as u32);
            let config = sys::CUlaunchConfig {
                gridDimX: x,
                gridDimY: y,
                gridDimZ: z,
                blockDimX: launch.threads as u32,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: launch.shared as u32,
                hStream: self.stream,
                attrs: &raw mut chained,
                numAttrs: u32::from(index > 0 && self.machine.capability >= CHAINING),
            };
            // SAFETY: the function is loaded; arguments are those of its parameters, of the same sizes, and are read
            // before the call returns, as are the configuration and its attribute. Addresses among them are of memory
            // that lives as long as this value.
            unsafe { sys::cuLaunchKernelEx(&raw const config, function, arguments.as_mut_ptr(), std::ptr::null_mut()) }
                .result()
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Seconds that the GPU takes for `count` copies of `bytes` from one place of its memory to another.
    pub(super) fn time_copies(
        &mut self,
        from: Address,
        to: Address,
        bytes: usize,
        count: usize,
    ) -> Result<f64, ModelError> {
        self.enter()?;
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed);
        let (start, end) = (event()?, event()?);
        // SAFETY: stream and events exist, and both places are as large as the caller says.
        let seconds = unsafe {
            let copies = || {
                result::event::record(start, self.stream)?;
                (0..count).try_for_each(|_| result::memcpy_dtod_async(to.0, from.0, bytes, self.stream))?;
                result::event::record(end, self.stream)?;
                result::event::synchronize(end)?;
                result::event::elapsed(start, end)
            };
            let milliseconds = copies();
            let _ = result::event::destroy(start).and(result::event::destroy(end));
            milliseconds.map(|milliseconds| f64::from(milliseconds) / 1e3)
        };
        seconds.map_err(failed)
    }
}

impl Device for Gpu {
    type Graph = Graph;

    fn machine(&self) -> Machine {
        self.machine
    }

    fn free(&self) -> Result<usize, ModelError> {
        self.enter()?;
        result::mem_get_info().map(|(free, _)| free).map_err(failed)
    }

    fn allocate(&mut self, bytes: usize) -> Result<Address, ModelError> {
        self.enter()?;
        let bytes = bytes.max(1);
        // SAFETY: the context is current; the memory is freed when this value is dropped.
        let place = unsafe { result::malloc_sync(bytes) }.map_err(failed)?;
        self.memory.push(place);
        // SAFETY: so many bytes were just allocated.
        unsafe { result::memset_d8_async(place, 0, bytes, self.stream) }.map_err(failed)?;
        self.finish()?;
        Ok(Address(place))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), ModelError> {
        self.enter()?;
        for (index, piece) in bytes.chunks(STAGING).enumerate() {
            // SAFETY: the event exists. Once it has passed, no copy reads the staging memory, which is as large as a
            // piece; the piece is copied there before the GPU is told. Callers upload to what they allocated.
            unsafe {
                result::event::synchronize(self.copied).map_err(failed)?;
                std::ptr::copy_nonoverlapping(piece.as_ptr(), self.staging, piece.len());
                let staged = std::slice::from_raw_parts(self.staging, piece.len());
                result::memcpy_htod_async(to.plus(index * STAGING).0, staged, self.stream).map_err(failed)?;
                result::event::record(self.copied, self.stream).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), ModelError> {
        self.enter()?;
        for (index, piece) in bytes.chunks_mut(STAGING).enumerate() {
            // SAFETY: the staging memory is as large as a piece. The stream runs in order, so earlier uploads have left
            // it when this copy fills it, and it is read when the stream has finished. Callers download what they
            // allocated.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(self.staging, piece.len());
                result::memcpy_dtoh_async(staged, from.plus(index * STAGING).0, self.stream).map_err(failed)?;
                self.finish()?;
                piece.copy_from_slice(staged);
            }
        }
        Ok(())
    }

    fn prepare(&mut self, shapes: &[MultiplyShape]) -> Result<(), ModelError> {
        self.enter()?;
        let mut library = Library::open()?;
        shapes.iter().try_for_each(|shape| library.prepare(*shape))?;
        library.work_in(self.allocate(WORKSPACE)?);
        self.library = Some(library);
        Ok(())
    }

    fn multiply(&mut self, product: &Multiply) -> Result<(), ModelError> {
        self.enter()?;
        let Some(library) = &self.library else {
            return Err(ModelError::Cuda(format!("{:?} was not prepared", product.shape)));
        };
        library.multiply(product, self.stream.cast())
    }

    fn run(&mut self, launches: &[Launch]) -> Result<(), ModelError> {
        self.enter()?;
        self.start(launches)
    }

    fn record(&mut self, launches: Vec<Launch>) -> Result<Graph, ModelError> {
        self.enter()?;
        // Nothing may be loaded while the stream is recorded.
        for launch in &launches {
            self.load(launch.kernel)?;
        }
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream exists, and is not being recorded.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(failed)?;
        let started = self.start(&launches);
        // SAFETY: the recording that began is ended, whatever became of it, and the graph destroyed once it is
        // instantiated.
        unsafe {
            let graph = result::stream::end_capture(self.stream).map_err(failed);
            started?;
            let graph = graph?;
            let instance = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let destroyed = result::graph::destroy(graph);
            let recorded = Graph(instance.map_err(failed)?);
            destroyed.map_err(failed)?;
            Ok(recorded)
        }
    }

    fn replay(&mut self, graph: &Graph) -> Result<(), ModelError> {
        self.enter()?;
        // SAFETY: graph and stream exist.
        unsafe { result::graph::launch(graph.0, self.stream) }.map_err(failed)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: each handle was created once and is destroyed once, after all work has ended; null handles were not
        // created. There is nothing to do about an error.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            if !self.stream.is_null() {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::stream::destroy(self.stream);
            }
            self.library = None;
            if !self.copied.is_null() {
                let _ = result::event::destroy(self.copied);
            }
            if !self.staging.is_null() {
                let _ = result::free_host(self.staging.cast());
            }
            for place in &self.memory {
                let _ = result::free_sync(*place);
            }
            for module in self.modules.values() {
                let _ = result::module::unload(*module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn machine(device: sys::CUdevice) -> Result<Machine, ModelError> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |attribute| {
        // SAFETY: the device was got from the driver.
        let value = unsafe { result::device::get_attribute(device, attribute) }.map_err(failed)?;
        usize::try_from(value).map_err(|_| ModelError::Cuda(format!("the driver says {value} of {attribute:?}")))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok(Machine {
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        capability: 10 * major + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    })
}

fn failed(error: result::DriverError) -> ModelError {
    use sys::cudaError_enum as Status;
    match error.0 {
        Status::CUDA_ERROR_NO_DEVICE | Status::CUDA_ERROR_INVALID_DEVICE => {
            ModelError::NoGpu("the driver finds none".into())
        }
        Status::CUDA_ERROR_STUB_LIBRARY => ModelError::NoGpu("the driver (libcuda) is a stub".into()),
        Status::CUDA_ERROR_OUT_OF_MEMORY => ModelError::GpuMemory("the driver has no more to give".into()),
        _ => ModelError::Cuda(format!("{error:?}")),
    }
}
