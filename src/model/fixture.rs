//! A tiny Llama with random weights, or what Qwen2 and Qwen3 make of it, written to disk in every format that the
//! readers take.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::backend::PAGE;
use super::{DraftModel, LoadedModel, ModelOptions, ModelSource, Precision};

const HIDDEN: usize = 64;
const INTERMEDIATE: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
pub(crate) const VOCABULARY: usize = 96;
pub(crate) const MAX_POSITIONS: usize = 256;
/// Keys and values in float32, each with a factor.
pub(crate) const PAGE_BYTES: usize = LAYERS * KV_HEADS * 2 * PAGE * (HEAD_DIM + 1) * 4;

/// Named tensors in Hugging Face order.
pub(crate) struct TinyLlama {
    /// `model_type` in one format, the architecture in the other.
    kind: &'static str,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl TinyLlama {
    /// Weights that are exact in bfloat16, so that every format holds the same model.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], around: f32, spread: f32| {
            let count = shape.iter().product();
            let values = (0..count).map(|_| to_bf16(around + rng.random_range(-spread..spread))).collect();
            tensors.insert(name, (shape.to_vec(), values));
        };
        add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN], 0.0, 1.0);
        add("model.norm.weight".into(), &[HIDDEN], 1.0, 0.2);
        for layer in 0..LAYERS {
            let mut part = |name: &str, shape: &[usize], around, spread| {
                add(format!("model.layers.{layer}.{name}.weight"), shape, around, spread);
            };
            part("input_layernorm", &[HIDDEN], 1.0, 0.2);
            part("post_attention_layernorm", &[HIDDEN], 1.0, 0.2);
            part("self_attn.q_proj", &[HEADS * HEAD_DIM, HIDDEN], 0.0, 0.3);
            part("self_attn.k_proj", &[KV_HEADS * HEAD_DIM, HIDDEN], 0.0, 0.3);
            part("self_attn.v_proj", &[KV_HEADS * HEAD_DIM, HIDDEN], 0.0, 0.3);
            part("self_attn.o_proj", &[HIDDEN, HEADS * HEAD_DIM], 0.0, 0.3);
            part("mlp.gate_proj", &[INTERMEDIATE, HIDDEN], 0.0, 0.3);
            part("mlp.up_proj", &[INTERMEDIATE, HIDDEN], 0.0, 0.3);
            part("mlp.down_proj", &[HIDDEN, INTERMEDIATE], 0.0, 0.3);
        }
        Self { kind: "llama", tensors }
    }

    /// As a Qwen2: with biases of queries, keys and values.
    pub(crate) fn qwen2(mut self) -> Self {
        for layer in 0..LAYERS {
            for (part, heads) in [("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)] {
                let bias = (0..heads * HEAD_DIM).map(|index| to_bf16((index as f32 * 0.7).sin())).collect();
                let name = format!("model.layers.{layer}.self_attn.{part}_proj.bias");
                self.tensors.insert(name, (vec![heads * HEAD_DIM], bias));
            }
        }
        Self { kind: "qwen2", ..self }
    }

    /// As a Qwen3: with norms of each head of queries and keys.
    pub(crate) fn qwen3(mut self) -> Self {
        for layer in 0..LAYERS {
            for part in ["q", "k"] {
                let weight = (0..HEAD_DIM).map(|index| to_bf16(1.0 + 0.5 * (index as f32).sin())).collect();
                let name = format!("model.layers.{layer}.self_attn.{part}_norm.weight");
                self.tensors.insert(name, (vec![HEAD_DIM], weight));
            }
        }
        Self { kind: "qwen3", ..self }
    }

    /// The same tensors under another architecture's name.
    pub(crate) fn named(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// With an output matrix of its own: the embedding upside down.
    pub(crate) fn untied(mut self) -> Self {
        let (shape, mut values) = self.tensors["model.embed_tokens.weight"].clone();
        values.reverse();
        self.tensors.insert("lm_head.weight".into(), (shape, values));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        assert!(self.tensors.remove(name).is_some());
        self
    }

    /// Writes `config.json` and the tensors as `dtype`, in `shards` files.
    pub(crate) fn write_folder(&self, folder: &Path, dtype: DType, shards: usize) -> ModelSource {
        let config = serde_json::json!({
            "model_type": self.kind, "hidden_act": "silu", "head_dim": HEAD_DIM,
            "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "max_position_embeddings": MAX_POSITIONS, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": !self.tensors.contains_key("lm_head.weight"),
        });
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let mut files = vec![BTreeMap::new(); shards];
        for (index, (name, (shape, values))) in self.tensors.iter().enumerate() {
            files[index % shards].insert(name.clone(), (shape.clone(), to_bytes(values, dtype)));
        }
        let kind = match dtype {
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            _ => Dtype::F32,
        };
        let mut weight_map = BTreeMap::new();
        for (index, tensors) in files.iter().enumerate() {
            let file = match shards {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{index}.safetensors"),
            };
            weight_map.extend(tensors.keys().map(|name| (name.clone(), file.clone())));
            let views = tensors
                .iter()
                .map(|(name, (shape, bytes))| (name, TensorView::new(kind, shape.clone(), bytes).unwrap()));
            safetensors::serialize_to_file(views, None, &folder.join(file)).unwrap();
        }
        if shards > 1 {
            let index = serde_json::json!({ "weight_map": weight_map });
            std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        ModelSource::HuggingFace(folder.to_owned())
    }

    /// Writes a GGUF file as llama.cpp's converter would.
    pub(crate) fn write_gguf(&self, path: &Path, dtype: GgmlDType) -> ModelSource {
        let count = |value: usize| Value::U32(value as u32);
        let shape = [
            ("block_count", count(LAYERS)),
            ("context_length", count(MAX_POSITIONS)),
            ("embedding_length", count(HIDDEN)),
            ("feed_forward_length", count(INTERMEDIATE)),
            ("attention.head_count", count(HEADS)),
            ("attention.head_count_kv", count(KV_HEADS)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("rope.freq_base", Value::F32(10_000.0)),
        ];
        let mut metadata = shape.map(|(key, value)| (format!("{}.{key}", self.kind), value)).to_vec();
        metadata.push(("general.architecture".to_owned(), Value::String(self.kind.to_owned())));
        let tensors: Vec<(String, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let reordered = self.kind == "llama" && (name.contains("q_proj") || name.contains("k_proj"));
                let values = if reordered { interleave(shape, values) } else { values.clone() };
                let tensor = Tensor::from_slice(&values, shape.as_slice(), &Device::Cpu);
                let dtype = if shape.len() == 1 { GgmlDType::F32 } else { dtype };
                (gguf_name(name), QTensor::quantize(&tensor.unwrap(), dtype).unwrap())
            })
            .collect();
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
        ModelSource::Gguf(path.to_owned())
    }

    /// This model in memory.
    pub(crate) fn load(&self, options: &ModelOptions) -> LoadedModel {
        let folder = tempfile::tempdir().unwrap();
        DraftModel::load(&self.write_folder(folder.path(), DType::BF16, 1), options).unwrap()
    }

    /// Runs this model.
    pub(crate) fn spawn(&self, options: ModelOptions) -> DraftModel {
        self.load(&options).spawn().unwrap()
    }
}

/// Options for tests: float32, seeded.
pub(crate) fn options() -> ModelOptions {
    ModelOptions { precision: Precision::F32, seed: Some(7), ..ModelOptions::default() }
}

/// The same with so many pages.
pub(crate) fn with_pages(pages: usize) -> ModelOptions {
    ModelOptions { cache_bytes: pages * PAGE_BYTES, ..options() }
}

fn to_bf16(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0xffff_0000)
}

fn to_bytes(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::BF16 => values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => {
            let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let mut tensors = std::collections::HashMap::from([("t".to_owned(), tensor)]);
            let file = tempfile::NamedTempFile::new().unwrap();
            candle_core::safetensors::save(&std::mem::take(&mut tensors), file.path()).unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("t").unwrap().data().to_vec()
        }
    }
}

/// llama.cpp's converter: `w.reshape(heads, 2, d / 2, columns).swapaxes(1, 2)` of queries and keys.
fn interleave(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let columns = values.len() / shape[0];
    let row = |index: usize| &values[index * columns..][..columns];
    (0..shape[0])
        .flat_map(|index| {
            let (head, within) = (index / HEAD_DIM, index % HEAD_DIM);
            row(head * HEAD_DIM + (within % 2) * (HEAD_DIM / 2) + within / 2).to_vec()
        })
        .collect()
}

fn gguf_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}
