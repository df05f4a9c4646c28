//! The text of single tokens, as log-probabilities name them (`vllm/v1/engine/logprobs.py`).

use super::tokenizer::{TextError, Tokenizer};

/// The mark that decoding puts in place of bytes that are not a character.
const UNFINISHED: char = '\u{fffd}';
/// No UTF-8 character is longer.
const LONGEST: usize = 4;

/// The text of `token` after the sampled tokens `before`, of which the last four matter.
///
/// A token that completes a character begun by earlier ones gets the whole character; one that leaves a character
/// unfinished gets nothing.
///
/// # Errors
/// When the tokenizer cannot decode it.
pub fn token_text(tokenizer: &Tokenizer, token: u32, before: &[u32]) -> Result<String, TextError> {
    let text = with_leading_spaces(tokenizer, token, tokenizer.decode(&[token], false)?);
    if !text.ends_with(UNFINISHED) {
        return Ok(text);
    }
    for count in 1..=LONGEST.min(before.len()) {
        let context = &before[before.len() - count..];
        let mut ids = context.to_vec();
        ids.push(token);
        let whole = tokenizer.decode(&ids, false)?;
        if whole.ends_with(UNFINISHED) {
            continue;
        }
        let mut clean = context.len();
        while clean > 0 && tokenizer.decode(&context[clean - 1..clean], false)?.ends_with(UNFINISHED) {
            clean -= 1;
        }
        let prefix = if clean > 0 { tokenizer.decode(&context[..clean], false)? } else { String::new() };
        let common: usize =
            prefix.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(_, b)| b.len_utf8()).sum();
        return Ok(whole[common..].to_owned());
    }
    Ok(String::new())
}

/// SentencePiece decoders strip the space that a piece begins with.
fn with_leading_spaces(tokenizer: &Tokenizer, token: u32, text: String) -> String {
    let Some(marker) = tokenizer.leading_space() else { return text };
    let Some(piece) = tokenizer.piece(token) else { return text };
    let wanted = piece.chars().take_while(|c| *c == marker).count();
    let present = text.chars().take_while(|c| *c == ' ').count();
    format!("{}{text}", " ".repeat(wanted.saturating_sub(present)))
}
