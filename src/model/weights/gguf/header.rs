//! What a GGUF file's key-value pairs say of its model.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};

use crate::model::config::{Architecture, ModelConfig};
use crate::model::error::ModelError;
use crate::model::kernels::rope::RopeScaling;

/// The file's key-value pairs; those of the model begin with `prefix`.
struct Header<'a> {
    path: &'a Path,
    content: &'a Content,
    prefix: &'a str,
}

/// The shape of the model in `content`, which is the file at `path`.
///
/// # Errors
/// [`ModelError::Unsupported`] for other architectures, or what the implementation of one lacks;
/// [`ModelError::Malformed`] for a file that does not say what llama.cpp needs to know.
pub(super) fn config(path: &Path, content: &Content) -> Result<ModelConfig, ModelError> {
    let name = content.metadata.get("general.architecture").and_then(|value| value.to_string().ok());
    let architecture = Architecture::named(name.map(String::as_str))?;
    let header = Header { path, content, prefix: name.map_or("", String::as_str) };
    header.refuse_what_is_missing(architecture)?;
    let heads = header.required_count("attention.head_count")?;
    let hidden = header.required_count("embedding_length")?;
    let head_dim = header.count("attention.key_length")?.unwrap_or(hidden / heads.max(1));
    if header.count("rope.dimension_count")?.is_some_and(|rotated| rotated != head_dim) {
        return Err(ModelError::Unsupported("rotating a part of each head is not implemented".into()));
    }
    let embedding = content.tensor_infos.get("token_embd.weight");
    let vocabulary = embedding.and_then(|info| info.shape.dims().first()).copied();
    ModelConfig {
        architecture,
        vocabulary: vocabulary.ok_or_else(|| ModelError::MissingTensor("token_embd.weight".into()))?,
        hidden,
        intermediate: header.required_count("feed_forward_length")?,
        layers: header.required_count("block_count")?,
        heads,
        kv_heads: header.count("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        rms_epsilon: header.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
        max_positions: header.required_count("context_length")?,
        rope_theta: header.number("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: header.rope_scaling()?,
        tied: None,
    }
    .check()
}

impl Header<'_> {
    fn refuse_what_is_missing(&self, architecture: Architecture) -> Result<(), ModelError> {
        let unsupported = |what: String| Err(ModelError::Unsupported(what));
        if self.count("expert_count")?.is_some_and(|experts| experts > 0) {
            return unsupported(format!("{architecture:?} with experts is not implemented"));
        }
        if self.count_of("split.count")?.is_some_and(|parts| parts > 1) {
            return unsupported("a model in several GGUF files is not implemented: merge them".into());
        }
        // llama.cpp adds whatever biases there are.
        let expected = |name: &str| {
            let part = name.split('.').nth(2).unwrap_or_default();
            architecture.has_biases() && matches!(part, "attn_q" | "attn_k" | "attn_v")
        };
        let mut names = self.content.tensor_infos.keys();
        match names.find(|name| name.ends_with(".bias") && !expected(name)) {
            Some(name) => unsupported(format!("{architecture:?} with a bias {name} is not implemented")),
            None => Ok(()),
        }
    }

    /// As llama.cpp reads it: a factor alone is a linear one.
    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.value("rope.scaling.type").map(|kind| kind.to_string().map_or("unknown", String::as_str));
        match kind.unwrap_or("linear") {
            "none" => Ok(RopeScaling::None),
            "linear" => {
                let factor = match self.number("rope.scaling.factor")? {
                    None => self.number("rope.scale_linear")?,
                    factor => factor,
                };
                Ok(match factor {
                    Some(factor) if factor > 0.0 => RopeScaling::Linear { factor },
                    _ => RopeScaling::None,
                })
            }
            other => Err(ModelError::Unsupported(format!("rope scaling {other} is not implemented"))),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.content.metadata.get(&format!("{}.{name}", self.prefix))
    }

    fn required_count(&self, name: &str) -> Result<usize, ModelError> {
        let missing = || ModelError::malformed(self.path, format!("{}.{name} is missing", self.prefix));
        self.count(name)?.ok_or_else(missing)
    }

    /// The count under `name` among those of the model.
    fn count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        self.count_of(&format!("{}.{name}", self.prefix))
    }

    fn count_of(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.content.metadata.get(key) else { return Ok(None) };
        let wide = value.to_u64().or_else(|_| value.to_i32().map(|value| value.max(0) as u64));
        let count = wide.ok().and_then(|wide| usize::try_from(wide).ok());
        count.map(Some).ok_or_else(|| ModelError::malformed(self.path, format!("{key} is not a count")))
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.to_f32().map(f64::from).or_else(|_| value.to_f64());
        let malformed = |_| ModelError::malformed(self.path, format!("{}.{name} is not a number", self.prefix));
        number.map(Some).map_err(malformed)
    }
}
