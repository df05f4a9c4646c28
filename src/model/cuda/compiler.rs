//! NVRTC: from a source to a binary for one architecture.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::source;
use crate::model::error::ModelError;

/// No header is included, so every function is the device's. Definitions that one module does not use are no fault.
const OPTIONS: [&str; 3] = ["-std=c++17", "-default-device", "-diag-suppress=177"];

/// NVRTC, loaded.
pub(super) struct Compiler {
    version: (i32, i32),
}

impl Compiler {
    /// # Errors
    /// [`ModelError::Compiler`] if the library is not there.
    pub(super) fn new() -> Result<Self, ModelError> {
        // SAFETY: looks for the library by its names, and loads it.
        if !unsafe { sys::is_culib_present() } {
            return Err(ModelError::Compiler("its library (libnvrtc) is not found".into()));
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both point to integers that live on.
        check(unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
        Ok(Self { version: (major, minor) })
    }

    /// All that a binary depends on.
    pub(super) fn key(&self, source: &str, capability: usize) -> String {
        let (major, minor) = self.version;
        format!("NVRTC {major}.{minor}, sm_{capability}, {OPTIONS:?}\n{}\n{source}", source::intrinsics())
    }

    /// Compiles a module's source for a compute capability (10 · major + minor).
    ///
    /// # Errors
    /// [`ModelError::Compiler`] with what it says.
    pub(super) fn compile(&self, source: &str, capability: usize) -> Result<Vec<u8>, ModelError> {
        let text = [source::intrinsics(), "\n", source].concat();
        let text = CString::new(text).map_err(|error| ModelError::Compiler(error.to_string()))?;
        let program = Program(result::create_program(&text, None).map_err(|error| failed(error.0))?);
        let options: Vec<String> =
            OPTIONS.iter().map(|option| (*option).to_owned()).chain([format!("-arch=sm_{capability}")]).collect();
        // SAFETY: the program was created and not destroyed.
        if let Err(error) = unsafe { result::compile_program(program.0, &options) } {
            return Err(ModelError::Compiler(format!("{:?}:\n{}", error.0, program.log())));
        }
        let mut size = 0;
        // SAFETY: the program is compiled, and `size` lives on.
        check(unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) })?;
        let mut binary = vec![0u8; size];
        // SAFETY: the buffer has the size that was asked for.
        check(unsafe { sys::nvrtcGetCUBIN(program.0, binary.as_mut_ptr().cast::<c_char>()) })?;
        Ok(binary)
    }
}

/// A program that is destroyed in the end.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program was created and not destroyed.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        CStr::from_bytes_until_nul(&bytes).map(|log| log.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once. There is nothing to do about an error.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn check(status: sys::nvrtcResult) -> Result<(), ModelError> {
    status.result().map_err(|error| failed(error.0))
}

fn failed(status: sys::nvrtcResult) -> ModelError {
    ModelError::Compiler(format!("{status:?}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::model::cuda::geometry::Machine;
    use crate::model::cuda::libraries::preload;
    use crate::model::cuda::source::{ModuleId, Shape};
    use crate::model::weights::KnownShape;

    /// Where the test target's Python environment has NVRTC.
    pub(in crate::model::cuda) fn nvrtc_folder() -> PathBuf {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/target/venv");
        let named = std::env::var_os("SIDEDRAFT_TARGET_PYTHON").map(PathBuf::from);
        let venv = named.and_then(|python| Some(python.parent()?.parent()?.to_owned())).unwrap_or(target);
        let folder = venv.join("lib/python3.11/site-packages/nvidia/cu13/lib");
        assert!(folder.is_dir(), "no NVRTC in {}: python3 tests/target/target.py setup", folder.display());
        folder
    }

    fn nvrtc() -> Compiler {
        preload(&nvrtc_folder()).unwrap();
        Compiler::new().unwrap()
    }

    fn compiles(known: KnownShape, bias: bool) {
        let compiler = nvrtc();
        let config = known.config();
        let qk_norms = config.architecture.has_head_norms();
        let shape = Shape { config, bias, qk_norms };
        for (capability, multiprocessors, shared) in [(80, 108, 163 << 10), (90, 132, 227 << 10), (100, 148, 227 << 10)]
        {
            let machine = Machine { multiprocessors, shared, capability };
            for module in ModuleId::ALL {
                let source = source::source(module, &shape, &machine);
                let binary =
                    compiler.compile(&source, capability).unwrap_or_else(|error| panic!("{module:?}: {error}"));
                let name = |kernel: &str| binary.windows(kernel.len()).any(|part| part == kernel.as_bytes());
                assert!(binary.starts_with(b"\x7fELF") && module.kernels().iter().all(|kernel| name(kernel.name())));
            }
        }
    }

    #[test]
    fn kernels_compile_for_a100_h100_and_b200_with_norms_of_heads() {
        compiles(KnownShape::Qwen3, false);
    }

    #[test]
    fn kernels_compile_for_a100_h100_and_b200_with_biases() {
        compiles(KnownShape::SmolLm2, true);
    }

    #[test]
    fn kernels_compile_for_a100_h100_and_b200_with_wide_layers() {
        compiles(KnownShape::Llama1b, false);
    }

    #[test]
    fn what_the_compiler_says_is_in_the_error() {
        let error = nvrtc().compile("KERNEL(32) broken() { undeclared = 1; }", 90).unwrap_err();
        assert!(error.to_string().contains("undeclared"), "{error}");
    }

    #[test]
    fn a_binary_depends_on_source_architecture_and_version() {
        let keys = [(13, 0), (13, 1)].map(|version| Compiler { version }.key("source", 90));
        let other = Compiler { version: (13, 0) };
        assert_ne!(keys[0], keys[1]);
        assert_ne!(keys[0], other.key("source", 100));
        assert_ne!(keys[0], other.key("another", 90));
        assert_eq!(keys[0], other.key("source", 90));
    }
}
