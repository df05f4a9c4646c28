//! The target's tokenizer, from a local `tokenizer.json` and the files beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::PreTokenizerWrapper;

use super::configured::configure;

/// Why a tokenizer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TextError {
    /// The file is missing or not a tokenizer.
    #[error("cannot read the tokenizer {path}: {reason}")]
    Load {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Ids that the tokenizer cannot turn into text.
    #[error("cannot decode tokens: {0}")]
    Decode(String),
}

/// A Hugging Face tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    leading_space: Option<char>,
}

impl Tokenizer {
    /// Reads `path`, a `tokenizer.json` or a folder that holds one, and the configuration beside it if there is one.
    ///
    /// # Errors
    /// When there is none or it cannot be read.
    pub fn load(path: &Path) -> Result<Self, TextError> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let failed = |reason: String| TextError::Load { path: file.clone(), reason };
        let text = std::fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
        let mut inner: tokenizers::Tokenizer =
            text.parse().map_err(|error: tokenizers::Error| failed(error.to_string()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        configure(&mut inner, folder).map_err(|error| failed(error.to_string()))?;
        Ok(Self { leading_space: inner.get_pre_tokenizer().and_then(leading_space), inner: Arc::new(inner) })
    }

    /// How many ids it has, added tokens included. The model's own vocabulary may be padded beyond.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .keys()
            .max()
            .map_or(0, |id| *id as usize + 1)
            .max(self.inner.get_vocab_size(true))
    }

    /// The ids that stand for themselves rather than for text, in order: those that may end a sequence.
    #[must_use]
    pub fn special_tokens(&self) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The ids of all added tokens in order, special or not: matched whole, they never come from merging text.
    #[must_use]
    pub fn added_tokens(&self) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let mut ids: Vec<u32> = added.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The content of the added token `id`, as it was added; nothing where `id` is a token of the model's own.
    pub(super) fn added_token(&self, id: u32) -> Option<&str> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).map(|token| token.content.as_str())
    }

    /// The text of `ids`.
    ///
    /// # Errors
    /// When the decoder of this tokenizer fails on them.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TextError> {
        self.inner.decode(ids, skip_special_tokens).map_err(|error| TextError::Decode(error.to_string()))
    }

    /// The vocabulary entry of `id`.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The character with which SentencePiece vocabularies mark a leading space, which decoding strips.
    pub(super) fn leading_space(&self) -> Option<char> {
        self.leading_space
    }

    pub(super) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}

/// As `get_leading_space_marker` in `vllm/tokenizers/detokenizer_utils.py` finds it: no deeper than in one sequence.
fn leading_space(pre_tokenizer: &PreTokenizerWrapper) -> Option<char> {
    let marker = |part: &PreTokenizerWrapper| match part {
        PreTokenizerWrapper::Metaspace(metaspace) => Some(metaspace.get_replacement()),
        _ => None,
    };
    match pre_tokenizer {
        PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().find_map(marker),
        other => marker(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::words;

    #[test]
    fn added_tokens_are_those_that_are_special_and_those_that_are_not() {
        let tokenizer = words(&["a", "b"], &[("<s>", true), ("<tool>", false), ("</s>", true)]);
        assert_eq!(tokenizer.added_tokens(), [2, 3, 4]);
        assert_eq!(tokenizer.special_tokens(), [2, 4]);
        assert_eq!(tokenizer.added_token(3), Some("<tool>"));
        assert_eq!(tokenizer.added_token(1), None);
        assert_eq!(tokenizer.vocabulary_size(), 5);
    }
}
