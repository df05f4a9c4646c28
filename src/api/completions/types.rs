//! What a completion request looks like on the wire (`vllm/entrypoints/openai/completion/protocol.py`).

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::api::openai::{Common, yes};

/// A completion request, typed as far as this sidecar understands it.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    #[serde(flatten)]
    pub(super) common: Common,
    pub(super) prompt: Option<PromptField>,
    pub(super) echo: Option<bool>,
    pub(super) logprobs: Option<i64>,
    pub(super) max_tokens: Option<u64>,
    #[serde(default = "one")]
    pub(super) n: usize,
    pub(super) suffix: Option<Value>,
    pub(super) prompt_embeds: Option<Value>,
    #[serde(default = "yes")]
    pub(super) add_special_tokens: bool,
    /// Fields that this sidecar has never heard of.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// Text, token ids, or a list of either.
#[derive(Debug, PartialEq)]
pub(super) enum PromptField {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

/// By hand, because an untagged enum would keep a copy of every id to try again with, and prompts are long.
impl<'de> Deserialize<'de> for PromptField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = PromptField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, token ids, or a list of either")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PromptField, E> {
        Ok(PromptField::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PromptField, A::Error> {
        Ok(match list.next_element()? {
            None => PromptField::Ids(Vec::new()),
            Some(Item::Id(id)) => PromptField::Ids(rest(id, list)?),
            Some(Item::Text(text)) => PromptField::Texts(rest(text, list)?),
            Some(Item::Ids(ids)) => PromptField::IdLists(rest(ids, list)?),
        })
    }
}

/// The list that begins with `first`, all of whose items are of one kind.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut list: A) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(item) = list.next_element()? {
        all.push(item);
    }
    Ok(all)
}

/// What a list of prompts begins with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Id(u32),
    Text(String),
    Ids(Vec<u32>),
}

fn one() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<PromptField> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn a_prompt_is_text_or_ids_or_a_list_of_either() {
        assert_eq!(read(r#""a\n""#), Some(PromptField::Text("a\n".to_owned())));
        assert_eq!(read("[1, 2]"), Some(PromptField::Ids(vec![1, 2])));
        assert_eq!(read("[]"), Some(PromptField::Ids(Vec::new())));
        assert_eq!(read(r#"["a", ""]"#), Some(PromptField::Texts(vec!["a".to_owned(), String::new()])));
        assert_eq!(read("[[1], []]"), Some(PromptField::IdLists(vec![vec![1], Vec::new()])));
    }

    #[test]
    fn anything_else_is_no_prompt() {
        for json in
            ["1", "{}", "true", r#"[1, "a"]"#, r#"["a", 1]"#, "[[1], 2]", "[1.5]", "[-1]", "[4294967296]", "[[[1]]]"]
        {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
