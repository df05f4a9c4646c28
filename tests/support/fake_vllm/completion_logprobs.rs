//! Logprobs as OpenAI's completions have them: four parallel lists.

use serde_json::{Map, Value, json};

use super::logprobs::{Row, floor};
use super::tokenizer::TextCodec;

/// How tokens are named, and where the next one begins.
pub struct Naming<'a> {
    /// Decodes them.
    pub codec: &'a TextCodec,
    /// `return_tokens_as_token_ids`.
    pub as_ids: bool,
    /// `text_offset` of the first token: the lengths of all the names before it, which need not be the text's length.
    pub offset: usize,
}

impl Naming<'_> {
    fn name(&self, before: &[u32], id: u32) -> String {
        if self.as_ids { format!("token_id:{id}") } else { self.codec.decoded_token(before, id) }
    }

    /// The logprobs of `ids`, which follow the sampled tokens `before`, and the offset after them. `rows` are in step with
    /// `ids`; an echoed prompt's first has none.
    #[must_use]
    pub fn logprobs(&self, before: &[u32], ids: &[u32], rows: &[Option<Row>]) -> (Value, usize) {
        let (mut tokens, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut offset = self.offset;
        let mut context = before.to_vec();
        for (position, &id) in ids.iter().enumerate() {
            let token = self.name(&context, id);
            offsets.push(offset);
            offset += token.chars().count();
            tokens.push(token);
            let row = rows.get(position).and_then(Option::as_ref);
            values.push(row.map(|row| floor(row.0[0].logprob)));
            // Alternatives with the same text collapse into one.
            let top = |row: &Row| {
                let named = row.0.iter().map(|entry| (self.name(&context, entry.id), json!(floor(entry.logprob))));
                named.collect::<Map<_, _>>()
            };
            tops.push(row.map(top));
            context.push(id);
        }
        (json!({"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops}), offset)
    }
}
