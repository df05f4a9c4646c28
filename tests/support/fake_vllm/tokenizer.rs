//! A byte-level tokenizer whose file the proxy can load: single characters, the bytes of `é` and `😀` one token each, and
//! some longer pieces that encoding never produces, so that retokenising a text does not give its tokens back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;
use tokenizers::tokenizer::step_decode_stream;

use super::config::FakeConfig;

/// Text of the token that ends a sequence.
pub const EOS_TEXT: &str = "<|eos|>";

/// Pieces of more than one character. No merge makes them, so only a model writes them.
const LONG_PIECES: [&str; 9] = ["th", "he", "in", "er", " a", " t", "ing", "and", " the"];

/// Ids to text and back, by the `tokenizers` crate.
#[derive(Clone)]
pub struct TextCodec {
    json: Value,
    tokenizer: Tokenizer,
}

impl TextCodec {
    /// The codec of a vocabulary of `vocab` tokens, the end of sequence last.
    ///
    /// # Panics
    /// If `vocab` is below 2.
    #[must_use]
    pub fn new(vocab: usize) -> Self {
        Self::with_ends(vocab, &[])
    }

    /// As [`TextCodec::new`], where the ids in `ends` are special tokens too, named `<|endN|>`.
    ///
    /// # Panics
    /// If `vocab` is below 2.
    #[must_use]
    pub fn with_ends(vocab: usize, ends: &[u32]) -> Self {
        let ends = ends.iter().map(|&id| Added { id, name: format!("<|end{id}|>"), special: true });
        Self::with_added(vocab, &ends.collect::<Vec<_>>())
    }

    /// The codec of a server's tokenizer: its ends, and the marks of reasoning where it has a parser for them.
    #[must_use]
    pub fn of(config: &FakeConfig) -> Self {
        let end = |special| move |&id: &u32| Added { id, name: format!("<|end{id}|>"), special };
        let special = config.defaults.extra_eos.iter().map(end(true));
        let plain = config.defaults.plain_eos.iter().map(end(false));
        let think = config.think_ids().into_iter().flat_map(|(start, end)| {
            [(start, "<think>"), (end, "</think>")].map(|(id, name)| Added { id, name: name.into(), special: false })
        });
        Self::with_added(config.language.vocab, &special.chain(plain).chain(think).collect::<Vec<_>>())
    }

    fn with_added(vocab: usize, added: &[Added]) -> Self {
        assert!(vocab >= 2, "a text token and the end of sequence");
        let json = tokenizer_json(vocab, added);
        let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
        Self { json, tokenizer }
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`, and returns the former's path.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("tokenizer.json");
        std::fs::write(&path, self.json.to_string()).unwrap();
        let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS_TEXT});
        std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
        path
    }

    /// Ids of `text`. Characters outside the vocabulary vanish.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, true).unwrap().get_ids().to_vec()
    }

    /// Text of `ids`.
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        self.tokenizer.decode(ids, skip_special_tokens).unwrap()
    }

    /// The name of `id` in the vocabulary, in the byte-level alphabet.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Text of one token after `before`, as vLLM's `decoded_token`: a token that completes a character has all of it, and
    /// one that leaves it incomplete is empty.
    #[must_use]
    pub fn decoded_token(&self, before: &[u32], id: u32) -> String {
        let alone = self.decode(&[id], false);
        if !alone.ends_with('\u{FFFD}') {
            return alone;
        }
        for context in (1..=before.len().min(4)).map(|len| &before[before.len() - len..]) {
            let whole = self.decode(&[context, &[id]].concat(), false);
            if whole.ends_with('\u{FFFD}') {
                continue;
            }
            let incomplete =
                context.iter().rev().take_while(|&&id| self.decode(&[id], false).ends_with('\u{FFFD}')).count();
            let clean = self.decode(&context[..context.len() - incomplete], false);
            return whole.strip_prefix(&clean).unwrap_or(&whole).to_owned();
        }
        String::new()
    }
}

/// Turns ids into text one at a time, as `tokenizers`' `DecodeStream` primed with the prompt.
pub struct TextStream {
    skip_special_tokens: bool,
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl TextStream {
    /// A stream that continues `prompt`.
    #[must_use]
    pub fn after(prompt: &[u32], skip_special_tokens: bool) -> Self {
        Self { skip_special_tokens, ids: prompt.to_vec(), prefix: String::new(), prefix_index: 0 }
    }

    /// The text that `id` adds: empty while a character is incomplete.
    pub fn push(&mut self, codec: &TextCodec, id: u32) -> String {
        let step = |stream: &mut Self| {
            let Self { skip_special_tokens, ids, prefix, prefix_index } = stream;
            step_decode_stream(&codec.tokenizer, vec![id], *skip_special_tokens, ids, prefix, prefix_index)
        };
        step(self)
            .unwrap_or_else(|_| {
                // vLLM starts afresh where invalid UTF-8 has confused the stream.
                *self = Self::after(&[], self.skip_special_tokens);
                step(self).unwrap()
            })
            .unwrap_or_default()
    }
}

/// A token that stands in the place of the vocabulary's own.
struct Added {
    id: u32,
    name: String,
    special: bool,
}

fn tokenizer_json(vocab: usize, added: &[Added]) -> Value {
    let last = vocab - 1;
    let token = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let added: Vec<&Added> = added.iter().filter(|added| (added.id as usize) < last).collect();
    let mut ids: Map<String, Value> = pieces().take(last).enumerate().map(|(id, piece)| (piece, json!(id))).collect();
    for id in ids.len()..last {
        ids.insert(format!("piece{id}"), json!(id));
    }
    ids.retain(|_, id| added.iter().all(|added| json!(added.id) != *id));
    ids.extend(added.iter().map(|added| (added.name.clone(), json!(added.id))));
    ids.insert(EOS_TEXT.to_owned(), json!(last));
    let tokens = added.iter().map(|added| token(added.id as usize, &added.name, added.special));
    let added: Vec<Value> = tokens.chain([token(last, EOS_TEXT, true)]).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": []},
    })
}

/// Every piece in the order of its id, in the byte-level alphabet, none twice.
fn pieces() -> impl Iterator<Item = String> {
    let common = " abcdefghijklmnopqrstuvwxyz.,\n!0123456789".bytes().chain("é😀".bytes()).map(|byte| vec![byte]);
    let long = LONG_PIECES.iter().map(|piece| piece.as_bytes().to_vec());
    let rest = (b' '..=b'~').chain(0..=255).map(|byte| vec![byte]);
    let alphabet = byte_alphabet();
    let mut seen = std::collections::HashSet::new();
    common
        .chain(long)
        .chain(rest)
        .filter(move |bytes| seen.insert(bytes.clone()))
        .map(move |bytes| bytes.iter().map(|byte| alphabet[byte]).collect())
}

/// GPT-2's printable stand-in for each byte.
fn byte_alphabet() -> HashMap<u8, char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let substitutes = (0..=255).filter(|byte| !printable(byte)).zip('\u{100}'..);
    (0..=255).filter(printable).map(|byte| (byte, char::from(byte))).chain(substitutes).collect()
}
