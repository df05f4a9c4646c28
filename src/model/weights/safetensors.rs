//! A Hugging Face folder: one safetensors file, or shards with an index. Tensors are read one by one, so that no
//! file is ever in memory as a whole.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{TensorReader, check_shape, read_error};
use crate::model::error::ModelError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The bound that the safetensors library sets itself.
const MAX_HEADER: u64 = 100_000_000;

/// A folder's tensors.
pub(super) struct Folder {
    shards: Vec<Shard>,
}

struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where in the file the tensors begin.
    data: u64,
}

#[derive(Deserialize)]
struct Index {
    /// Tensor name to file name.
    weight_map: HashMap<String, String>,
}

impl Folder {
    pub(super) fn open(folder: &Path) -> Result<Self, ModelError> {
        let index = folder.join(INDEX);
        let names = if index.exists() {
            let json = std::fs::read_to_string(&index).map_err(|error| read_error(&index, error))?;
            let parsed: Index = serde_json::from_str(&json).map_err(|error| ModelError::malformed(&index, error))?;
            parsed.weight_map.into_values().collect()
        } else {
            BTreeSet::from([SINGLE.to_owned()])
        };
        let shards = names.iter().map(|name| Shard::open(folder.join(name))).collect::<Result<_, _>>()?;
        Ok(Self { shards })
    }
}

impl TensorReader for Folder {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
        for shard in &mut self.shards {
            if let Some(values) = shard.read(name, shape)? {
                return Ok(Some(values));
            }
        }
        Ok(None)
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let failed = |error| read_error(&path, error);
        let mut file = File::open(&path).map_err(failed)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(ModelError::malformed(&path, "its header is too long"));
        }
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(failed)?;
        let metadata = serde_json::from_slice(&header).map_err(|error| ModelError::malformed(&path, error))?;
        Ok(Self { path, file, metadata, data: 8 + length })
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        check_shape(name, shape, &info.shape)?;
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            safetensors::Dtype::BF16 => DType::BF16,
            other => return Err(ModelError::Unsupported(format!("tensor {name} is of type {other:?}"))),
        };
        let (start, end) = info.data_offsets;
        if end.checked_sub(start) != Some(shape.iter().product::<usize>() * dtype.size_in_bytes()) {
            return Err(ModelError::malformed(
                &self.path,
                format!("tensor {name} has a length that is not its shape's"),
            ));
        }
        let mut bytes = vec![0; end - start];
        self.file
            .seek(SeekFrom::Start(self.data + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|error| read_error(&self.path, error))?;
        Tensor::from_raw_buffer(&bytes, dtype, &[bytes.len() / dtype.size_in_bytes()], &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32)?.to_vec1())
            .map(Some)
            .map_err(|error| ModelError::malformed(&self.path, error))
    }
}
