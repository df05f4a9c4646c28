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
