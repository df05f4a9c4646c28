//! A GGUF file of llama.cpp's architectures `llama`, `qwen2` and `qwen3`.
//!
//! For `llama`, llama.cpp rotates neighbouring elements, so its converter reorders the rows of the query and key
//! matrices: within a head, row 2·j + s is Hugging Face's row s·(d/2) + j. Reading undoes that, and one rotation serves
//! both formats. For the others it rotates halves, as Hugging Face does, and no row moves.

mod header;
mod vocabulary;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::Content;

pub use vocabulary::gguf_vocabulary;

use super::{TensorReader, check_shape, read_error};
use crate::model::config::{Architecture, ModelConfig};
use crate::model::error::ModelError;

/// An open file.
pub(super) struct GgufFile {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
    /// Heads of queries and of keys, where their rows were reordered.
    reordered: Option<(usize, usize)>,
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<(ModelConfig, Self), ModelError> {
        let (file, content) = read_content(path)?;
        let config = header::config(path, &content)?;
        let reordered = (config.architecture == Architecture::Llama).then_some((config.heads, config.kv_heads));
        Ok((config, Self { path: path.to_owned(), file, content, reordered }))
    }
}

/// Opens the file at `path` and reads all but the tensors.
fn read_content(path: &Path) -> Result<(BufReader<File>, Content), ModelError> {
    let mut file = BufReader::new(File::open(path).map_err(|error| read_error(path, error))?);
    let content = Content::read(&mut file).map_err(|error| {
        let reason = error.to_string();
        // The library names what it does not know by llama.cpp's number.
        if reason.starts_with("unknown dtype") {
            ModelError::Unsupported(format!("its tensors are of a type that cannot be read ({reason})"))
        } else {
            ModelError::malformed(path, reason)
        }
    })?;
    Ok((file, content))
}

impl TensorReader for GgufFile {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(own_name) = gguf_name(name) else { return Ok(None) };
        let Some(info) = self.content.tensor_infos.get(&own_name) else { return Ok(None) };
        check_shape(name, shape, info.shape.dims())?;
        let values = self
            .content
            .tensor(&mut self.file, &own_name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>())
            .map_err(|error| ModelError::malformed(&self.path, error))?;
        let heads = match self.reordered {
            Some((heads, _)) if own_name.ends_with("attn_q.weight") => heads,
            Some((_, kv_heads)) if own_name.ends_with("attn_k.weight") => kv_heads,
            _ => return Ok(Some(values)),
        };
        Ok(Some(split_halves(&values, shape[0] / heads, shape[1])))
    }

    fn rope_divisors(&mut self, pairs: usize) -> Result<Option<Vec<f32>>, ModelError> {
        self.read("rope_freqs.weight", &[pairs])
    }
}

/// Llama.cpp's name of a tensor.
fn gguf_name(name: &str) -> Option<String> {
    let fixed = match name {
        "model.embed_tokens.weight" => "token_embd.weight",
        "model.norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        "rope_freqs.weight" => name,
        _ => {
            let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
            let (part, kind) = part.rsplit_once('.')?;
            let part = match part {
                "input_layernorm" => "attn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "self_attn.o_proj" => "attn_output",
                "post_attention_layernorm" => "ffn_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                _ => return None,
            };
            return Some(format!("blk.{layer}.{part}.{kind}"));
        }
    };
    Some(fixed.to_owned())
}

/// Puts the rows of each head, interleaved by llama.cpp, back into two halves.
fn split_halves(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut output = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * columns) {
        for half in 0..2 {
            for row in head.chunks_exact(columns).skip(half).step_by(2) {
                output.extend_from_slice(row);
            }
        }
    }
    output
}
