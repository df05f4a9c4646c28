//! `/v1/completions` asked with token ids: sampling, prompt log-probabilities and fan-out on any version of vLLM.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::client::Upstream;
use super::error::UpstreamError;
use super::origin::Origin;
use super::wire::{Candidate, PlaceholderMap, RowMap, Sampled, SamplingFields, WireUsage, placeholder_id, rows};

pub(super) const PATH: &str = "/v1/completions";

/// A request for completions of one or more prompts under the same parameters.
#[derive(Debug, Clone)]
pub struct CompletionCall<'a> {
    /// On whose behalf.
    pub origin: &'a Origin,
    /// Token ids of each prompt; a server with the Rust frontend takes one prompt a request.
    pub prompts: Vec<Cow<'a, [u32]>>,
    /// The client's parameters.
    pub sampling: Cow<'a, SamplingFields>,
    /// Tokens to sample after each prompt, at least 1.
    pub max_tokens: usize,
    /// How many of the likeliest tokens to report beside each sampled one.
    pub logprobs: usize,
    /// Also report each prompt token's log-probability and so many of the likeliest. Never reads the prefix cache.
    pub prompt_logprobs: Option<usize>,
    /// Added to the logits of these ids before sampling; vLLM clamps it to [-100, 100].
    pub logit_bias: &'a [(u32, f64)],
    /// Ids at which to stop, beside the model's own.
    pub stop_token_ids: &'a [u32],
    /// Whether to go on past the model's own end-of-sequence tokens.
    pub ignore_eos: bool,
}

/// What the server said.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionReply {
    /// One for each prompt, in the prompts' order.
    pub choices: Vec<CompletionChoice>,
    /// How many prompt tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The name under which the server answers.
    pub model: Option<String>,
}

/// The completion of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionChoice {
    /// The sampled tokens.
    pub tokens: Vec<Sampled>,
    /// Row i describes prompt token i; the first is absent. Only if asked for.
    pub prompt_rows: Option<Vec<Option<Vec<Candidate>>>>,
    /// `stop`, `length` and the like.
    pub finish_reason: Option<String>,
    /// The stop token's id, if it was not the model's primary end-of-sequence token.
    pub stop_reason: Option<serde_json::Value>,
}

#[derive(Serialize)]
pub(super) struct WireRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(serialize_with = "one_or_many")]
    prompt: &'a [Cow<'a, [u32]>],
    #[serde(flatten)]
    sampling: &'a SamplingFields,
    max_tokens: usize,
    logprobs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    logit_bias: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    stop_token_ids: &'a [u32],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
    return_tokens_as_token_ids: bool,
    pub(super) stream: bool,
}

/// A single prompt is a list of ids: the Rust frontend takes no list of prompts, not even one of a single prompt.
fn one_or_many<S: Serializer>(prompts: &&[Cow<'_, [u32]>], serializer: S) -> Result<S::Ok, S::Error> {
    match prompts {
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

impl<'a> CompletionCall<'a> {
    pub(super) fn wire(&'a self, stream: bool) -> WireRequest<'a> {
        WireRequest {
            model: self.origin.model.as_deref(),
            prompt: &self.prompts,
            sampling: &self.sampling,
            max_tokens: self.max_tokens,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            logit_bias: self.logit_bias.iter().map(|(id, bias)| (id.to_string(), *bias)).collect(),
            stop_token_ids: self.stop_token_ids,
            ignore_eos: self.ignore_eos,
            cache_salt: self.origin.cache_salt.as_deref(),
            return_tokens_as_token_ids: true,
            stream,
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
    prompt_logprobs: Option<Vec<Option<RowMap>>>,
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
                Ok(Sampled { token: id(name)?, logprob, candidates })
            })
            .collect()
    }
}

impl Upstream {
    /// Asks for completions.
    ///
    /// # Errors
    /// When the server refuses or its reply does not hold one choice for each prompt.
    pub async fn complete(&self, call: &CompletionCall<'_>) -> Result<CompletionReply, UpstreamError> {
        let body = self.post(call.origin, PATH, &call.wire(false)).await?;
        let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
        let mut reply: WireReply = serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
        reply.choices.sort_by_key(|choice| choice.index);
        if reply.choices.len() != call.prompts.len() {
            return Err(protocol(format!("{} choices for {} prompts", reply.choices.len(), call.prompts.len())));
        }
        let choices = reply.choices.into_iter().map(|choice| {
            let logprobs = choice.logprobs.ok_or_else(|| "no log-probabilities".to_owned())?;
            Ok(CompletionChoice {
                tokens: logprobs.sampled()?,
                prompt_rows: choice.prompt_logprobs.map(rows),
                finish_reason: choice.finish_reason,
                stop_reason: choice.stop_reason,
            })
        });
        Ok(CompletionReply {
            choices: choices.collect::<Result<_, String>>().map_err(protocol)?,
            cached_tokens: reply.usage.and_then(WireUsage::cached_tokens),
            fingerprint: reply.system_fingerprint,
            model: reply.model,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_leaves_out_what_was_not_asked_for() {
        let origin = Origin { model: Some("m".to_owned()), ..Origin::default() };
        let call = CompletionCall {
            origin: &origin,
            prompts: vec![Cow::Borrowed(&[1, 2]), Cow::Borrowed(&[1, 2, 3])],
            sampling: Cow::Owned(SamplingFields { temperature: Some(1.0), ..SamplingFields::default() }),
            max_tokens: 1,
            logprobs: 5,
            prompt_logprobs: None,
            logit_bias: &[(7, -100.0)],
            stop_token_ids: &[],
            ignore_eos: false,
        };
        expect_test::expect![[r#"{"model":"m","prompt":[[1,2],[1,2,3]],"temperature":1.0,"max_tokens":1,"logprobs":5,"logit_bias":{"7":-100.0},"return_tokens_as_token_ids":true,"stream":false}"#]]
        .assert_eq(&serde_json::to_string(&call.wire(false)).unwrap());
    }

    #[test]
    fn tokens_come_by_id() {
        let logprobs = WireLogprobs {
            tokens: vec!["token_id:3".to_owned()],
            token_logprobs: vec![Some(-0.5)],
            top_logprobs: vec![serde_json::from_str(r#"{"token_id:3": -0.5, "token_id:1": -1.5}"#).unwrap()],
        };
        let candidates = vec![Candidate { token: 3, logprob: -0.5 }, Candidate { token: 1, logprob: -1.5 }];
        assert_eq!(logprobs.sampled(), Ok(vec![Sampled { token: 3, logprob: -0.5, candidates }]));
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
