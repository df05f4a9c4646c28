//! What can go wrong in the model room. All of it costs speed, never an answer.

use std::path::PathBuf;

use crate::speculation::TokenId;

/// Why the draft model could not be loaded, or could not answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the model could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the model is not what its name says.
    #[error("{} is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model is well formed, but of a kind that is not implemented.
    #[error("unsupported draft model: {0}")]
    Unsupported(String),
    /// A tensor that the architecture needs is missing.
    #[error("the model has no tensor {0}")]
    MissingTensor(String),
    /// A tensor has another shape than the configuration says.
    #[error("tensor {name} has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// The tensor's name, as in a Hugging Face folder.
        name: String,
        /// Rows, then columns.
        expected: Vec<usize>,
        /// What the file has.
        found: Vec<usize>,
    },
    /// There is less memory for keys and values than one page of them takes.
    #[error("the draft model's cache of {bytes} bytes does not hold one page of {page} bytes")]
    CacheTooSmall {
        /// What it may take.
        bytes: usize,
        /// What a page takes, which depends on the model.
        page: usize,
    },
    /// A thread could not be started.
    #[error("cannot start the draft model's threads: {0}")]
    Threads(String),
    /// The model thread is gone: stopped, or dead of a panic. No later call can succeed.
    #[error("the draft model's thread has stopped")]
    Stopped,
    /// The context does not fit; a shorter one would.
    #[error("a context of {length} tokens is longer than the draft model's {limit} positions")]
    ContextTooLong {
        /// Tokens in the context.
        length: usize,
        /// Positions that the model has, or that its cache has room for.
        limit: usize,
    },
    /// There is nothing to continue.
    #[error("the context is empty")]
    EmptyContext,
    /// The context holds an id that the draft model has no embedding for.
    #[error("token {token} is outside the draft model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The offending id.
        token: TokenId,
        /// Ids that the model knows.
        vocabulary: usize,
    },
    /// There is no GPU: no driver, or one that finds none.
    #[error("there is no GPU: {0}")]
    NoGpu(String),
    /// A GPU is there that the kernels are not made for.
    #[error("the GPU is too old: it is an sm_{found}, and sm_{needed} or later is needed")]
    OldGpu {
        /// Its compute capability: 10 · major + minor.
        found: usize,
        /// The least that would do.
        needed: usize,
    },
    /// The kernels' compiler cannot be loaded, or does not compile them.
    #[error("NVRTC, which compiles the GPU's kernels: {0}")]
    Compiler(String),
    /// The GPU has too little free memory.
    #[error("the GPU's memory is too small: {0}")]
    GpuMemory(String),
    /// The GPU or its driver failed in another way. Nothing else of the process is touched.
    #[error("CUDA: {0}")]
    Cuda(String),
    /// No id that may be drafted has a finite logit: the weights are broken, or no id may be drafted.
    #[error("the draft model gave no finite logit")]
    NoFiniteLogit,
}

impl ModelError {
    /// What it is about a GPU that keeps the model from running on it, in a word; none where the GPU has no part in it.
    #[must_use]
    pub fn gpu_fault(&self) -> Option<&'static str> {
        match self {
            Self::NoGpu(_) => Some("no_gpu"),
            Self::OldGpu { .. } => Some("architecture"),
            Self::Compiler(_) => Some("compiler"),
            Self::GpuMemory(_) => Some("memory"),
            Self::Unsupported(_) => Some("model"),
            Self::Cuda(_) => Some("driver"),
            _ => None,
        }
    }

    /// Says that `path` is malformed because of `reason`.
    pub(super) fn malformed(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }
}
