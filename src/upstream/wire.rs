//! The pieces that several of vLLM's replies are made of.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Candidate {
    /// The token id.
    #[serde(rename = "token_id")]
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f64,
}

/// A token that the server sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token id.
    pub token: u32,
    /// Its log-probability as the server reports it.
    pub logprob: f64,
    /// What was asked for beside it, in any order; may contain the token itself.
    pub candidates: Vec<Candidate>,
}

/// The sampling parameters that shape the distribution, as the client gave them: what it left out stays out, and
/// the server applies its own defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SamplingFields {
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0 or −1 keep every token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Nucleus mass, in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Least probability relative to the likeliest token's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// 1 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
}

/// A position's log-probabilities as prompt log-probabilities carry them: a map from token id to an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowMap(pub(super) Vec<Candidate>);

impl<'de> Deserialize<'de> for RowMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        #[derive(Deserialize)]
        struct Value {
            logprob: f64,
        }
        impl<'de> Visitor<'de> for Entries {
            type Value = RowMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token id to its log-probability")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowMap, A::Error> {
                let mut row = Vec::with_capacity(map.size_hint().unwrap_or(21));
                // JSON object keys are strings; vLLM's are decimal ids.
                while let Some((id, value)) = map.next_entry::<std::borrow::Cow<'de, str>, Value>()? {
                    let token = id.parse().map_err(serde::de::Error::custom)?;
                    row.push(Candidate { token, logprob: value.logprob });
                }
                Ok(RowMap(row))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Rows of prompt log-probabilities: row i describes prompt token i, and the first token has none.
pub(super) fn rows(list: Vec<Option<RowMap>>) -> Vec<Option<Vec<Candidate>>> {
    list.into_iter().map(|row| row.map(|map| map.0)).collect()
}

/// Token accounting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(super) struct WireUsage {
    #[serde(default)]
    pub(super) prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(super) struct PromptTokensDetails {
    pub(super) cached_tokens: Option<usize>,
}

impl WireUsage {
    pub(super) fn cached_tokens(self) -> Option<usize> {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens)
    }
}

/// The id in `token_id:123`, the form in which `return_tokens_as_token_ids` makes the server name tokens.
pub(super) fn placeholder_id(text: &str) -> Option<u32> {
    text.strip_prefix("token_id:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_rows_keep_ids_and_values() {
        let text = r#"[null, {"5": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}, "12": {"logprob": -2.25}}]"#;
        let parsed = rows(serde_json::from_str(text).unwrap());
        let row = vec![Candidate { token: 5, logprob: -0.5 }, Candidate { token: 12, logprob: -2.25 }];
        assert_eq!(parsed, [None, Some(row)]);
    }

    #[test]
    fn only_placeholders_name_ids() {
        assert_eq!(placeholder_id("token_id:42"), Some(42));
        assert_eq!(placeholder_id("42"), None);
        assert_eq!(placeholder_id("token_id:x"), None);
    }
}
