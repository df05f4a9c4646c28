//! Logprobs as OpenAI's chat has them: an entry for each token, with its bytes and its rivals.

use super::completion_logprobs::Naming;
use super::logprobs::{Row, floor};
use super::ordered::{Json, obj};
use super::tokenizer::TextCodec;

/// `{"content": […]}` of `ids`, which follow the output `before`. `keep` rivals are listed, the token itself counting as
/// one. A token's bytes are its text's even where its name is `token_id:N`; a rival's are its name's.
#[must_use]
pub fn content(codec: &TextCodec, as_ids: bool, before: &[u32], ids: &[u32], rows: &[Row], keep: usize) -> Json {
    let naming = Naming { codec, as_ids, offset: 0 };
    let mut context = before.to_vec();
    let mut entries = Vec::new();
    for (&id, row) in ids.iter().zip(rows) {
        let rival = |id: u32, logprob: f64| {
            let name = naming.name(&context, id);
            let bytes = name.clone().into_bytes();
            obj! {"token": name, "logprob": floor(logprob), "bytes": bytes}
        };
        let top: Json = row.0.iter().take(keep).map(|entry| rival(entry.id, entry.logprob)).collect();
        entries.push(obj! {
            "token": naming.name(&context, id),
            "logprob": floor(row.0[0].logprob),
            "bytes": codec.decoded_token(&context, id).into_bytes(),
            "top_logprobs": top,
        });
        context.push(id);
    }
    obj! {"content": entries}
}

/// How many rivals `count` keeps, −1 being all.
#[must_use]
pub fn keep(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
