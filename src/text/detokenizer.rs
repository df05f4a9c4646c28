//! Token by token to text, as `FastIncrementalDetokenizer` in `vllm/v1/engine/detokenizer.py` does it.

use super::tokenizer::{TextError, Tokenizer};

/// Turns the tokens of one rollout into text as they come. Bytes of an unfinished character are held back.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    /// The tokens whose text may still change what comes next: at first the whole prompt.
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl Detokenizer {
    /// A detokenizer for what follows `prompt`.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, prompt: &[u32], skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, ids: prompt.to_vec(), prefix: String::new(), prefix_index: 0 }
    }

    /// The text that `token` completes; empty while a character is unfinished.
    ///
    /// # Errors
    /// When the tokenizer cannot decode it.
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        match self.step(token) {
            Ok(text) => Ok(text.unwrap_or_default()),
            // The decoder's output was not monotonic, which breaks the stream's state; vLLM starts a new one.
            Err(error) if error.to_string().starts_with("Invalid prefix encountered") => {
                self.ids.clear();
                self.prefix.clear();
                self.prefix_index = 0;
                let text = self.step(token).map_err(|error| TextError::Decode(error.to_string()))?;
                Ok(text.unwrap_or_default())
            }
            Err(error) => Err(TextError::Decode(error.to_string())),
        }
    }

    fn step(&mut self, token: u32) -> tokenizers::Result<Option<String>> {
        tokenizers::step_decode_stream(
            self.tokenizer.inner(),
            vec![token],
            self.skip_special_tokens,
            &mut self.ids,
            &mut self.prefix,
            &mut self.prefix_index,
        )
    }
}
