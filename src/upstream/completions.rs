//! `/v1/completions` asked with token ids: sampling, prompt log-probabilities and fan-out on any version of vLLM.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::call::{Call, Choice, Reply};
use super::client::Upstream;
use super::error::UpstreamError;
use super::wire::{
    PlaceholderMap, RowMap, Sampled, SamplingFields, StreamOptions, WireUsage, is_zero, placeholder_id, rows,
};

pub(super) const PATH: &str = "/v1/completions";

#[derive(Serialize)]
pub(super) struct WireRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(serialize_with = "one_or_many")]
    prompt: &'a [Cow<'a, [u32]>],
    #[serde(flatten)]
    sampling: &'a SamplingFields,
    #[serde(skip_serializing_if = "is_one")]
    n: usize,
    max_tokens: usize,
    #[serde(skip_serializing_if = "is_zero")]
    min_tokens: usize,
    logprobs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    logit_bias: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    bad_words: &'a [String],
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    stop_token_ids: &'a [u32],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    return_tokens_as_token_ids: bool,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

/// A single prompt is a list of ids: the Rust frontend takes no list of prompts, not even one of a single prompt.
fn one_or_many<S: Serializer>(prompts: &&[Cow<'_, [u32]>], serializer: S) -> Result<S::Ok, S::Error> {
    match prompts {
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

impl<'a> Call<'a> {
    pub(super) fn as_completion(&'a self, stream: bool) -> WireRequest<'a> {
        let constraints = &*self.constraints;
        WireRequest {
            model: self.origin.model.as_deref(),
            prompt: &self.prompts,
            sampling: &self.sampling,
            n: self.n,
            max_tokens: self.max_tokens,
            min_tokens: constraints.min_tokens.min(self.max_tokens),
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            logit_bias: constraints.logit_bias.iter().map(|(id, bias)| (id.to_string(), *bias)).collect(),
            allowed_token_ids: constraints.allowed_token_ids.as_deref(),
            bad_words: &constraints.bad_words,
            stop_token_ids: &constraints.stop_token_ids,
            ignore_eos: constraints.ignore_eos,
            cache_salt: self.origin.cache_salt.as_deref(),
            priority: self.origin.priority,
            session_id: self.origin.session_id.as_deref(),
            return_tokens_as_token_ids: true,
            stream,
            stream_options: StreamOptions::of(self, stream),
        }
    }
}

#[derive(Deserialize)]
struct WireReply {
    choices: Vec<WireChoice>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    system_fingerprint: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
struct WireChoice {
    index: usize,
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
    #[serde(default)]
    prompt_logprobs: Option<Box<RawValue>>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    stop_reason: Option<serde_json::Value>,
}

/// The token strings are placeholders that hold ids.
#[derive(Deserialize)]
pub(super) struct WireLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    #[serde(default)]
    top_logprobs: Vec<Option<PlaceholderMap>>,
}

impl WireLogprobs {
    pub(super) fn sampled(self) -> Result<Vec<Sampled>, String> {
        let mut tops = self.top_logprobs.into_iter();
        let id = |name: &str| placeholder_id(name).ok_or_else(|| format!("token {name:?} is not named by its id"));
        self.tokens
            .iter()
            .zip(self.token_logprobs)
            .map(|(name, logprob)| {
                let candidates = tops.next().flatten().map(|map| map.0).unwrap_or_default();
                let logprob = logprob.ok_or_else(|| format!("token {name:?} has no log-probability"))?;
                Ok(Sampled { token: id(name)?, logprob, rank: None, candidates })
            })
            .collect()
    }
}

/// Rows of prompt log-probabilities, read and as they were written.
pub(super) type PromptRows = (Option<Vec<Option<Vec<super::wire::Candidate>>>>, Option<Arc<str>>);

/// Reads rows of prompt log-probabilities; `null` is none.
pub(super) fn read_rows(raw: Option<&RawValue>) -> Result<PromptRows, String> {
    let Some(raw) = raw else { return Ok((None, None)) };
    let parsed: Option<Vec<Option<RowMap>>> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    Ok(match parsed {
        Some(list) => (Some(rows(list)), Some(Arc::from(raw.get()))),
        None => (None, None),
    })
}

impl Upstream {
    /// Asks for completions.
    ///
    /// # Errors
    /// When the server refuses, aborts, or its reply does not hold `n` choices for each prompt.
    pub async fn complete(&self, call: &Call<'_>) -> Result<Reply, UpstreamError> {
        let body = self.post(call.origin, PATH, &call.as_completion(false)).await?;
        let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
        let mut reply: WireReply = serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
        reply.choices.sort_by_key(|choice| choice.index);
        if reply.choices.len() != call.prompts.len() * call.n {
            return Err(protocol(format!("{} choices for {} prompts", reply.choices.len(), call.prompts.len())));
        }
        let choices = reply.choices.into_iter().map(|choice| {
            let logprobs = choice.logprobs.ok_or_else(|| "no log-probabilities".to_owned())?;
            let (prompt_rows, prompt_rows_json) = read_rows(choice.prompt_logprobs.as_deref())?;
            Ok(Choice {
                tokens: logprobs.sampled()?,
                prompt_rows,
                prompt_rows_json,
                finish_reason: choice.finish_reason,
                stop_reason: choice.stop_reason,
                version: None,
            })
        });
        let choices = choices.collect::<Result<Vec<_>, String>>().map_err(protocol)?;
        if choices.iter().any(Choice::is_aborted) {
            return Err(UpstreamError::Aborted);
        }
        Ok(Reply {
            choices,
            cached_tokens: reply.usage.and_then(WireUsage::cached_tokens),
            fingerprint: reply.system_fingerprint,
            model: reply.model,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::Origin;
    use super::super::wire::{Candidate, Constraints};
    use super::*;

    #[test]
    fn the_request_leaves_out_what_was_not_asked_for() {
        let origin = Origin { model: Some("m".to_owned()), ..Origin::default() };
        let constraints = Constraints { logit_bias: vec![(7, -100.0)], ..Constraints::default() };
        let call = Call {
            prompts: vec![Cow::Borrowed(&[1, 2]), Cow::Borrowed(&[1, 2, 3])],
            sampling: Cow::Owned(SamplingFields { temperature: Some(1.0), ..SamplingFields::default() }),
            constraints: Cow::Borrowed(&constraints),
            logprobs: 5,
            ..Call::new(&origin, &[])
        };
        expect_test::expect![[r#"{"model":"m","prompt":[[1,2],[1,2,3]],"temperature":1.0,"max_tokens":1,"logprobs":5,"logit_bias":{"7":-100.0},"return_tokens_as_token_ids":true,"stream":false}"#]]
        .assert_eq(&serde_json::to_string(&call.as_completion(false)).unwrap());
    }

    #[test]
    fn what_was_asked_for_is_passed_on_and_the_shortest_output_is_no_longer_than_the_longest() {
        let origin = Origin { priority: -3, session_id: Some("s".to_owned()), ..Origin::default() };
        let constraints = Constraints {
            allowed_token_ids: Some(vec![4, 5]),
            bad_words: vec!["no".to_owned()],
            min_tokens: 9,
            stop_token_ids: vec![6],
            ignore_eos: true,
            ..Constraints::default()
        };
        let call = Call { n: 3, constraints: Cow::Borrowed(&constraints), ..Call::new(&origin, &[1]) };
        expect_test::expect![[r#"{"prompt":[1],"n":3,"max_tokens":1,"min_tokens":1,"logprobs":0,"allowed_token_ids":[4,5],"bad_words":["no"],"stop_token_ids":[6],"ignore_eos":true,"priority":-3,"session_id":"s","return_tokens_as_token_ids":true,"stream":true}"#]]
        .assert_eq(&serde_json::to_string(&call.as_completion(true)).unwrap());
    }

    #[test]
    fn tokens_come_by_id() {
        let logprobs = WireLogprobs {
            tokens: vec!["token_id:3".to_owned()],
            token_logprobs: vec![Some(-0.5)],
            top_logprobs: vec![serde_json::from_str(r#"{"token_id:3": -0.5, "token_id:1": -1.5}"#).unwrap()],
        };
        let candidate = |token, logprob| Candidate { token, logprob, rank: None };
        let candidates = vec![candidate(3, -0.5), candidate(1, -1.5)];
        assert_eq!(logprobs.sampled(), Ok(vec![Sampled { token: 3, logprob: -0.5, rank: None, candidates }]));
    }

    #[test]
    fn a_server_that_names_tokens_by_text_is_not_understood() {
        let logprobs = WireLogprobs {
            tokens: vec![" the".to_owned()],
            token_logprobs: vec![Some(-0.5)],
            top_logprobs: Vec::new(),
        };
        assert!(logprobs.sampled().is_err());
    }
}
