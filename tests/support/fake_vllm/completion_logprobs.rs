//! Logprobs as OpenAI's completions have them: four parallel lists.

use super::logprobs::{Row, floor};
use super::ordered::{Json, obj};
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
    /// The name of `id` after the sampled tokens `before`.
    #[must_use]
    pub fn name(&self, before: &[u32], id: u32) -> String {
        if self.as_ids { format!("token_id:{id}") } else { self.codec.decoded_token(before, id) }
    }

    /// The logprobs of `ids`, which follow the sampled tokens `before`, and the offset after them. `rows` are in step with
    /// `ids`; an echoed prompt's first has none.
    #[must_use]
    pub fn logprobs(&self, before: &[u32], ids: &[u32], rows: &[Option<Row>]) -> (Json, usize) {
        let (mut tokens, mut values, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut offset = self.offset;
        let mut context = before.to_vec();
        for (position, &id) in ids.iter().enumerate() {
            let token = self.name(&context, id);
            offsets.push(Json::from(offset));
            offset += token.chars().count();
            tokens.push(Json::from(token));
            let row = rows.get(position).and_then(Option::as_ref);
            values.push(Json::from(row.map(|row| floor(row.0[0].logprob))));
            // Alternatives with the same text collapse into one.
            let top = |row: &Row| {
                let named = row.0.iter();
                Json::object(named.map(|entry| (self.name(&context, entry.id), floor(entry.logprob).into())))
            };
            tops.push(Json::from(row.map(top)));
            context.push(id);
        }
        let lists = obj! {"text_offset": offsets, "token_logprobs": values, "tokens": tokens, "top_logprobs": tops};
        (lists, offset)
    }
}
