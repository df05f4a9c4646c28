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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::quantized::GgmlDType;
    use candle_core::quantized::gguf_file::{TensorInfo, VersionedMagic};

    use super::*;

    /// The shape of a model of `kind` with more key-value pairs.
    fn parse(kind: &str, more: &[(&str, Value)]) -> Result<ModelConfig, ModelError> {
        let counts = [
            ("block_count", 2),
            ("context_length", 256),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ];
        let mut metadata: HashMap<String, Value> =
            counts.map(|(key, count)| (format!("{kind}.{key}"), Value::U32(count))).into();
        metadata.insert("general.architecture".to_owned(), Value::String(kind.to_owned()));
        metadata.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let embedding = TensorInfo { ggml_dtype: GgmlDType::F32, shape: (96, 64).into(), offset: 0 };
        let content = Content {
            magic: VersionedMagic::GgufV3,
            metadata,
            tensor_infos: [("token_embd.weight".to_owned(), embedding)].into(),
            tensor_data_offset: 0,
        };
        config(Path::new("x.gguf"), &content)
    }

    #[test]
    fn each_architecture_is_told_under_its_own_prefix() {
        for (kind, architecture) in
            [("llama", Architecture::Llama), ("qwen2", Architecture::Qwen2), ("qwen3", Architecture::Qwen3)]
        {
            let head_dim = (format!("{kind}.attention.key_length"), Value::U32(24));
            let found = parse(kind, &[(&head_dim.0, head_dim.1)]).unwrap();
            assert_eq!((found.architecture, found.vocabulary, found.head_dim), (architecture, 96, 24));
        }
        assert_eq!(parse("llama", &[]).unwrap().head_dim, 16);
    }

    #[test]
    fn a_factor_is_a_linear_one_unless_it_is_said_otherwise() {
        let text = |text: &str| Value::String(text.to_owned());
        let scaling = |more: &[(&str, Value)]| parse("llama", more).unwrap().rope_scaling;
        let (kind, factor) = ("llama.rope.scaling.type", ("llama.rope.scaling.factor", Value::F32(4.0)));
        assert_eq!(scaling(&[]), RopeScaling::None);
        assert_eq!(scaling(std::slice::from_ref(&factor)), RopeScaling::Linear { factor: 4.0 });
        assert_eq!(scaling(&[(kind, text("linear")), factor.clone()]), RopeScaling::Linear { factor: 4.0 });
        assert_eq!(scaling(&[("llama.rope.scale_linear", Value::F32(2.0))]), RopeScaling::Linear { factor: 2.0 });
        assert_eq!(scaling(&[(kind, text("none")), factor]), RopeScaling::None);
    }

    #[test]
    fn what_an_implementation_lacks_is_refused_in_a_sentence() {
        for (kind, key, value, sentence) in [
            ("gemma3", "x", 0, "only the architectures Llama, Qwen2 and Qwen3 are implemented, not gemma3"),
            ("llama", "llama.expert_count", 8, "Llama with experts is not implemented"),
            ("qwen3", "split.count", 2, "a model in several GGUF files is not implemented: merge them"),
            ("qwen2", "qwen2.rope.dimension_count", 8, "rotating a part of each head is not implemented"),
        ] {
            let error = parse(kind, &[(key, Value::U32(value))]).unwrap_err().to_string();
            assert_eq!(error, format!("unsupported draft model: {sentence}"));
        }
        let yarn = ("qwen2.rope.scaling.type", Value::String("yarn".to_owned()));
        assert!(parse("qwen2", &[yarn]).unwrap_err().to_string().ends_with("rope scaling yarn is not implemented"));
        let missing =
            parse("llama", &[("llama.block_count", Value::Bool(true)), ("llama.context_length", Value::F32(1.0))]);
        assert!(missing.unwrap_err().to_string().ends_with("llama.context_length is not a count"));
    }
}
