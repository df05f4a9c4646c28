//! A GGUF file of llama.cpp's `llama` architecture.
//!
//! llama.cpp rotates neighbouring elements, so its converter reorders the rows of the query and key matrices: within
//! a head, row 2·j + s is Hugging Face's row s·(d/2) + j. Reading undoes that, and one rotation serves both formats.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};

use super::{TensorReader, check_shape, read_error};
use crate::model::config::LlamaConfig;
use crate::model::error::ModelError;
use crate::model::kernels::rope::RopeScaling;

/// An open file.
pub(super) struct GgufFile {
    path: PathBuf,
    file: BufReader<File>,
    content: Content,
    heads: usize,
    kv_heads: usize,
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<(LlamaConfig, Self), ModelError> {
        let file = File::open(path).map_err(|error| read_error(path, error))?;
        let mut file = BufReader::new(file);
        let content = Content::read(&mut file).map_err(|error| ModelError::malformed(path, error))?;
        let config = Header { path, content: &content }.config()?;
        let (heads, kv_heads) = (config.heads, config.kv_heads);
        Ok((config, Self { path: path.to_owned(), file, content, heads, kv_heads }))
    }
}

/// The vocabulary of the file at `path`, by id.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn gguf_vocabulary(path: &Path) -> Result<Vec<String>, ModelError> {
    let file = File::open(path).map_err(|error| read_error(path, error))?;
    let content = Content::read(&mut BufReader::new(file)).map_err(|error| ModelError::malformed(path, error))?;
    let tokens = content.metadata.get("tokenizer.ggml.tokens").and_then(|value| value.to_vec().ok());
    let tokens = tokens.ok_or_else(|| ModelError::malformed(path, "no tokenizer.ggml.tokens"))?;
    tokens.iter().map(|token| token.to_string().cloned().map_err(|error| ModelError::malformed(path, error))).collect()
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
        let heads = if own_name.ends_with("attn_q.weight") {
            self.heads
        } else if own_name.ends_with("attn_k.weight") {
            self.kv_heads
        } else {
            return Ok(Some(values));
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
            let part = match part {
                "input_layernorm.weight" => "attn_norm",
                "self_attn.q_proj.weight" => "attn_q",
                "self_attn.k_proj.weight" => "attn_k",
                "self_attn.v_proj.weight" => "attn_v",
                "self_attn.o_proj.weight" => "attn_output",
                "post_attention_layernorm.weight" => "ffn_norm",
                "mlp.gate_proj.weight" => "ffn_gate",
                "mlp.up_proj.weight" => "ffn_up",
                "mlp.down_proj.weight" => "ffn_down",
                _ => return None,
            };
            return Some(format!("blk.{layer}.{part}.weight"));
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

/// The file's key-value pairs.
struct Header<'a> {
    path: &'a Path,
    content: &'a Content,
}

impl Header<'_> {
    fn config(&self) -> Result<LlamaConfig, ModelError> {
        match self.content.metadata.get("general.architecture") {
            Some(Value::String(name)) if name == "llama" => {}
            other => {
                let name = other.and_then(|value| value.to_string().ok()).map_or("an unnamed one", String::as_str);
                return Err(ModelError::Unsupported(format!("only the Llama architecture is implemented, not {name}")));
            }
        }
        if self.content.metadata.contains_key("llama.expert_count") {
            return Err(ModelError::Unsupported("Llama with experts is not implemented".into()));
        }
        let heads = self.required_count("llama.attention.head_count")?;
        let hidden = self.required_count("llama.embedding_length")?;
        let head_dim = self.count("llama.attention.key_length")?.unwrap_or(hidden / heads.max(1));
        if self.count("llama.rope.dimension_count")?.is_some_and(|rotated| rotated != head_dim) {
            return Err(ModelError::Unsupported("rotating a part of each head is not implemented".into()));
        }
        let embedding = self.content.tensor_infos.get("token_embd.weight");
        let vocabulary = embedding.and_then(|info| info.shape.dims().first()).copied();
        LlamaConfig {
            vocabulary: vocabulary.ok_or_else(|| ModelError::MissingTensor("token_embd.weight".into()))?,
            hidden,
            intermediate: self.required_count("llama.feed_forward_length")?,
            layers: self.required_count("llama.block_count")?,
            heads,
            kv_heads: self.count("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            rms_epsilon: self.number("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
            max_positions: self.required_count("llama.context_length")?,
            rope_theta: self.number("llama.rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling()?,
            tied: None,
        }
        .check()
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        match self.content.metadata.get("llama.rope.scaling.type") {
            None => Ok(RopeScaling::None),
            Some(Value::String(kind)) if kind == "none" => Ok(RopeScaling::None),
            Some(Value::String(kind)) if kind == "linear" => {
                Ok(RopeScaling::Linear { factor: self.number("llama.rope.scaling.factor")?.unwrap_or(1.0) })
            }
            Some(kind) => Err(ModelError::Unsupported(format!("rope scaling {kind:?} is not implemented"))),
        }
    }

    fn required_count(&self, key: &str) -> Result<usize, ModelError> {
        self.count(key)?.ok_or_else(|| ModelError::malformed(self.path, format!("{key} is missing")))
    }

    fn count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.content.metadata.get(key) else { return Ok(None) };
        let wide = value.to_u64().or_else(|_| value.to_i32().map(|value| value.max(0) as u64));
        let count = wide.ok().and_then(|wide| usize::try_from(wide).ok());
        count.map(Some).ok_or_else(|| ModelError::malformed(self.path, format!("{key} is not a count")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.content.metadata.get(key) else { return Ok(None) };
        let number = value.to_f32().map(f64::from).or_else(|_| value.to_f64());
        number.map(Some).map_err(|_| ModelError::malformed(self.path, format!("{key} is not a number")))
    }
}
