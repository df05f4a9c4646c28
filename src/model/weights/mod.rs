//! Where weights come from. Each format becomes a [`TensorReader`] of `f32` tensors under Hugging Face names and in
//! Hugging Face order, so that nothing above knows the formats apart.

mod config_json;
mod gguf;
mod parts;
mod random;
mod safetensors;

pub use gguf::gguf_vocabulary;
#[cfg(test)]
pub(super) use parts::HeadNorms;
pub(super) use parts::{Layer, Parts};
pub use random::KnownShape;

use std::path::{Path, PathBuf};

use super::config::ModelConfig;
use super::error::ModelError;

/// A draft model on disk, or one made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder with `config.json` and `model.safetensors`, or shards with `model.safetensors.index.json`; in
    /// bfloat16, float16 or float32.
    HuggingFace(PathBuf),
    /// A llama.cpp file. Its quantised weights are expanded, then held in the precision of the options.
    Gguf(PathBuf),
    /// Random weights, always the same, for benchmarks.
    Random(KnownShape),
}

impl ModelSource {
    /// A path that ends in `.gguf` is a GGUF file, any other a Hugging Face folder.
    #[must_use]
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            Self::Gguf(path)
        } else {
            Self::HuggingFace(path)
        }
    }

    /// Reads the configuration and finds the tensors.
    pub(super) fn open(&self) -> Result<(ModelConfig, Box<dyn TensorReader>), ModelError> {
        match self {
            Self::HuggingFace(folder) => {
                let path = folder.join("config.json");
                let json = std::fs::read_to_string(&path).map_err(|error| read_error(&path, error))?;
                let config = config_json::parse(&path, &json)?;
                Ok((config, Box::new(safetensors::Folder::open(folder)?)))
            }
            Self::Gguf(path) => {
                let (config, reader) = gguf::GgufFile::open(path)?;
                Ok((config, Box::new(reader)))
            }
            Self::Random(shape) => {
                let config = shape.config();
                let architecture = config.architecture;
                Ok((config, Box::new(random::RandomTensors { architecture })))
            }
        }
    }
}

/// Tensors by name.
pub(super) trait TensorReader {
    /// Reads tensor `name` of the given shape, row-major; `None` if there is no such tensor.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError>;

    /// Divisors of the rotary frequencies, [head_dim / 2], if the format brings them as a tensor.
    fn rope_divisors(&mut self, _pairs: usize) -> Result<Option<Vec<f32>>, ModelError> {
        Ok(None)
    }
}

fn read_error(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Read { path: path.to_owned(), source }
}

fn check_shape(name: &str, expected: &[usize], found: &[usize]) -> Result<(), ModelError> {
    if expected == found {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.to_owned(), expected: expected.to_vec(), found: found.to_vec() })
}
