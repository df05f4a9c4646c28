//! Finding the CUDA libraries. The driver's comes with the driver; NVRTC's and cuBLASLt may come with a toolkit, or with
//! the packages that PyTorch brings, where the loader does not look.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::model::error::ModelError;

/// Where CUDA is, and what may be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Which GPU, as the driver counts them.
    pub ordinal: usize,
    /// A folder with NVRTC's libraries and cuBLASLt, if the loader does not find them by itself.
    pub libraries: Option<PathBuf>,
    /// Where compiled kernels are kept; `sidedraft/kernels` in the user's cache folder if absent.
    pub binaries: Option<PathBuf>,
}

/// NVRTC's own libraries, in the order in which they can be loaded.
const NVRTC: [&str; 2] = ["libnvrtc-builtins.so", "libnvrtc.so"];

/// What long passes are done with; prompts are read without, too.
const CUBLAS_LT: &str = "libcublasLt.so";

/// Loads NVRTC from a folder, and cuBLASLt if it is there, so that whoever asks for them by name finds them loaded.
///
/// # Errors
/// [`ModelError::Cuda`] if the folder lacks NVRTC, or a library cannot be loaded.
pub(super) fn preload(folder: &Path) -> Result<(), ModelError> {
    let entries = std::fs::read_dir(folder).map_err(|source| ModelError::Read { path: folder.to_owned(), source })?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for name in NVRTC.into_iter().chain([CUBLAS_LT]) {
        let found = files.iter().find(|file| {
            let file = file.file_name().map(|file| file.to_string_lossy());
            file.is_some_and(|file| file.starts_with(name))
        });
        let Some(file) = found else {
            if name == CUBLAS_LT {
                continue;
            }
            return Err(ModelError::Cuda(format!("{} has no {name}", folder.display())));
        };
        // SAFETY: the folder is the operator's choice, and NVIDIA's libraries do nothing when loaded but initialise
        // themselves. Kept for good: its functions are called as long as the process lives.
        let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) };
        std::mem::forget(library.map_err(|error| ModelError::Cuda(error.to_string()))?);
    }
    Ok(())
}
