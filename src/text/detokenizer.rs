//! Token by token to text, as `FastIncrementalDetokenizer` in `vllm/v1/engine/detokenizer.py` does it.

use super::tokenizer::{TextError, Tokenizer};

/// Turns the tokens of one rollout into text as they come. Bytes of an unfinished character are held back.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    /// Whether an added token that follows another gives its bare content, without what the decoder puts between.
    bare_added_tokens: bool,
    after_added_token: bool,
    /// The tokens whose text may still change what comes next: at first the whole prompt.
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl Detokenizer {
    /// A detokenizer for what follows `prompt`.
    ///
    /// Spaces between added tokens, special or not, are only taken away where special tokens are shown.
    #[must_use]
    pub fn new(
        tokenizer: Tokenizer,
        prompt: &[u32],
        skip_special_tokens: bool,
        spaces_between_special_tokens: bool,
    ) -> Self {
        Self {
            tokenizer,
            skip_special_tokens,
            bare_added_tokens: !skip_special_tokens && !spaces_between_special_tokens,
            // Also where the prompt ends with an added token: the server looks at the output alone.
            after_added_token: false,
            ids: prompt.to_vec(),
            prefix: String::new(),
            prefix_index: 0,
        }
    }

    /// The text that `token` completes; empty while a character is unfinished.
    ///
    /// # Errors
    /// When the tokenizer cannot decode it.
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        let text = self.step_or_start_again(token)?;
        if !self.bare_added_tokens {
            return Ok(text);
        }
        let content = self.tokenizer.added_token(token);
        let after_added_token = std::mem::replace(&mut self.after_added_token, content.is_some());
        Ok(content.filter(|_| after_added_token).map_or(text, str::to_owned))
    }

    fn step_or_start_again(&mut self, token: u32) -> Result<String, TextError> {
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::fixture::words;
    use super::*;

    const WORDS: [&str; 4] = ["a", "b", "c", "d"];
    const ADDED: [(&str, bool); 2] = [("<s>", true), ("<tool>", false)];

    fn deltas(prompt: &[u32], tokens: &[u32], skip: bool, spaces: bool) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(words(&WORDS, &ADDED), prompt, skip, spaces);
        tokens.iter().map(|token| detokenizer.push(*token).unwrap()).collect()
    }

    #[test]
    fn an_added_token_after_another_is_bare_where_no_spaces_are_wanted() {
        assert_eq!(deltas(&[0], &[4, 5, 4, 1, 5], false, false), [" <s>", "<tool>", "<s>", " b", " <tool>"]);
        assert_eq!(deltas(&[0], &[4, 5, 4, 1, 5], false, true), [" <s>", " <tool>", " <s>", " b", " <tool>"]);
    }

    #[test]
    fn the_prompt_is_not_what_an_added_token_follows() {
        assert_eq!(deltas(&[0, 4], &[5, 4], false, false), [" <tool>", "<s>"]);
    }

    #[test]
    fn where_special_tokens_are_skipped_spaces_stay_as_the_decoder_has_them() {
        assert_eq!(deltas(&[0], &[5, 4, 5], true, false), [" <tool>", "", " <tool>"]);
    }

    proptest! {
        #[test]
        fn spaces_stand_between_any_two_tokens_but_bare_ones(
            prompt in vec(0..4_u32, 1..4), tokens in vec(0..6_u32, 0..30), spaces in any::<bool>(),
        ) {
            let piece = |token: u32| WORDS.get(token as usize).copied().unwrap_or_else(|| ADDED[token as usize - 4].0);
            let mut after_added = false;
            let expected: Vec<String> = tokens.iter().map(|token| {
                let bare = std::mem::replace(&mut after_added, *token >= 4) && *token >= 4 && !spaces;
                format!("{}{}", if bare { "" } else { " " }, piece(*token))
            }).collect();
            prop_assert_eq!(deltas(&prompt, &tokens, false, spaces), expected);
        }
    }
}
