//! The pieces that several of vLLM's replies are made of.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token id.
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f64,
    /// How many tokens are at least as likely, itself included, where the server says.
    pub rank: Option<u32>,
}

/// A token that the server sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token id.
    pub token: u32,
    /// Its log-probability as the server reports it.
    pub logprob: f64,
    /// How many tokens were at least as likely, itself included, where the server says.
    pub rank: Option<u32>,
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

impl SamplingFields {
    /// The values that leave the distribution as it is: vLLM's own defaults, where no model brings others.
    #[must_use]
    pub fn neutral() -> Self {
        Self {
            temperature: Some(1.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            repetition_penalty: Some(1.0),
        }
    }
}

/// What bars or favours tokens, beyond the shape of the distribution, and what ends the output.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraints {
    /// Added to the logits of these ids; the OpenAI routes clamp it to [-100, 100], the generate route does not.
    pub logit_bias: Vec<(u32, f64)>,
    /// The only ids that may be sampled.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Words that may not be sampled.
    pub bad_words: Vec<String>,
    /// So many tokens must come before one that ends the output.
    pub min_tokens: usize,
    /// Ids at which to stop, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Whether to go on past the model's own end-of-sequence tokens.
    pub ignore_eos: bool,
}

impl Constraints {
    /// Whether tokens are barred or favoured now, so that the raw distribution does not tell what is sampled.
    #[must_use]
    pub fn shape_sampling(&self) -> bool {
        !self.logit_bias.is_empty()
            || self.allowed_token_ids.is_some()
            || !self.bad_words.is_empty()
            || self.min_tokens > 0
    }
}

/// A run of output tokens and the policy version that they were sampled under.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct VersionSpan {
    /// The version.
    pub version: String,
    /// The first token's index in the output.
    pub start: usize,
    /// One past the last token's index.
    pub end: usize,
}

/// A position's log-probabilities as prompt log-probabilities carry them: a map from token id to an object. Absent where
/// a key is no id or a value no number, as in rows that the V1 runner never wrote.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowMap(pub(super) Option<Vec<Candidate>>);

/// The same as sampled tokens carry them: a map from `token_id:N` to the value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlaceholderMap(pub(super) Vec<Candidate>);

#[derive(Deserialize)]
struct RowValue {
    logprob: Option<f64>,
    #[serde(default)]
    rank: Option<u32>,
}

impl<'de> Deserialize<'de> for RowMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let candidate = |key: &str, value: RowValue| {
            Some(Candidate { token: key.parse().ok()?, logprob: value.logprob?, rank: value.rank })
        };
        deserializer.deserialize_map(CandidateMap(candidate, PhantomData)).map(Self)
    }
}

impl<'de> Deserialize<'de> for PlaceholderMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let candidate = |key: &str, logprob: f64| Some(Candidate { token: placeholder_id(key)?, logprob, rank: None });
        let candidates = deserializer.deserialize_map(CandidateMap(candidate, PhantomData))?;
        candidates.map(Self).ok_or_else(|| D::Error::custom("a token is not named by its id"))
    }
}

/// Reads a JSON object into candidates, keeping its order, which is the server's ranking; into nothing if one of its
/// entries is not a candidate.
struct CandidateMap<F, V>(F, PhantomData<V>);

impl<'de, V: Deserialize<'de>, F: Fn(&str, V) -> Option<Candidate>> Visitor<'de> for CandidateMap<F, V> {
    type Value = Option<Vec<Candidate>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from token id to log-probability")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut candidates = Some(Vec::with_capacity(map.size_hint().unwrap_or(21)));
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, V>()? {
            match (&mut candidates, (self.0)(&key, value)) {
                (Some(list), Some(candidate)) => list.push(candidate),
                _ => candidates = None,
            }
        }
        Ok(candidates)
    }
}

/// Rows of prompt log-probabilities: row i describes prompt token i, and the first token has none.
pub(super) fn rows(list: Vec<Option<RowMap>>) -> Vec<Option<Vec<Candidate>>> {
    list.into_iter().map(|row| row.and_then(|map| map.0)).collect()
}

/// What a stream is to tell beside its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct StreamOptions {
    include_usage: bool,
}

impl StreamOptions {
    /// What `call` asks of its stream; nothing of a reply that is none.
    pub(super) fn of(call: &super::call::Call<'_>, stream: bool) -> Option<Self> {
        (stream && call.stream_usage).then_some(Self { include_usage: true })
    }
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

/// Whether a count or a priority is the one that needs no word.
pub(super) fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
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
        let row = vec![
            Candidate { token: 5, logprob: -0.5, rank: Some(1) },
            Candidate { token: 12, logprob: -2.25, rank: None },
        ];
        assert_eq!(parsed, [None, Some(row)]);
    }

    #[test]
    fn a_row_of_uninitialised_memory_is_absent() {
        let text = r#"[{"-1801009536": {"logprob": 1e-40}}, {"7": {"logprob": null}}, {"7": {"logprob": -1.0}}]"#;
        let parsed = rows(serde_json::from_str(text).unwrap());
        assert_eq!(parsed, [None, None, Some(vec![Candidate { token: 7, logprob: -1.0, rank: None }])]);
    }

    #[test]
    fn only_placeholders_name_ids() {
        assert_eq!(placeholder_id("token_id:42"), Some(42));
        assert_eq!(placeholder_id("42"), None);
        assert_eq!(placeholder_id("token_id:x"), None);
    }
}
