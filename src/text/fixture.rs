//! Tokenizers of whole words for the tests beside this file.

use serde_json::{Value, json};

use super::Tokenizer;

/// A tokenizer of the words `words`, then the added tokens `added`, each with whether it is special. It has no decoder,
/// so a space goes between any two tokens.
pub(super) fn words(words: &[&str], added: &[(&str, bool)]) -> Tokenizer {
    words_beside(words, added, &[])
}

/// The same with JSON files in the folder that it is read from.
pub(super) fn words_beside(words: &[&str], added: &[(&str, bool)], files: &[(&str, Value)]) -> Tokenizer {
    let vocabulary: Value = words.iter().zip(0..).map(|(word, id)| (word.to_string(), id)).collect();
    let added = added.iter().zip(words.len()..).map(|((content, special), id)| {
        json!({
            "id": id, "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
        })
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": added.collect::<Value>(),
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": words[0] }
    });
    let folder = tempfile::tempdir().unwrap();
    for (name, json) in files.iter().chain(&[("tokenizer.json", tokenizer)]) {
        std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    }
    Tokenizer::load(folder.path()).unwrap()
}
