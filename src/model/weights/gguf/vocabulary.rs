//! The vocabulary that a GGUF file brings along.

use std::path::Path;

use super::read_content;
use crate::model::error::ModelError;

/// The vocabulary of the file at `path`, by id; nothing where an id only pads the embedding.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn gguf_vocabulary(path: &Path) -> Result<Vec<Option<String>>, ModelError> {
    let (_, content) = read_content(path)?;
    let tokens = content.metadata.get("tokenizer.ggml.tokens").and_then(|value| value.to_vec().ok());
    let tokens = tokens.ok_or_else(|| ModelError::malformed(path, "no tokenizer.ggml.tokens"))?;
    let pieces = tokens.iter().enumerate().map(|(id, token)| {
        let token = token.to_string().map_err(|error| ModelError::malformed(path, error))?;
        Ok((*token != padding(id)).then(|| token.clone()))
    });
    pieces.collect()
}

/// What llama.cpp's converter calls an id that no token has.
fn padding(id: usize) -> String {
    format!("[PAD{id}]")
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::{self, Value};

    use super::*;

    #[test]
    fn an_id_that_only_pads_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let tokens = ["a", "[PAD7]", "[PAD2]", "b", "[PAD4]"].map(|token| Value::String(token.to_owned()));
        let tokens = Value::Array(tokens.to_vec());
        let mut file = std::fs::File::create(&path).unwrap();
        gguf_file::write(&mut file, &[("tokenizer.ggml.tokens", &tokens)], &[]).unwrap();
        let expected = [Some("a"), Some("[PAD7]"), None, Some("b"), None].map(|token| token.map(str::to_owned));
        assert_eq!(gguf_vocabulary(&path).unwrap(), expected);
    }

    #[test]
    fn a_file_without_a_vocabulary_is_malformed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &[], &[]).unwrap();
        assert!(matches!(gguf_vocabulary(&path), Err(ModelError::Malformed { .. })));
    }
}
