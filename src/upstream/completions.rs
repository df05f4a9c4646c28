//! `/v1/completions` asked with token ids: sampling, prompt log-probabilities and fan-out on any version of vLLM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::body::{Pieced, Pieces};
use super::call::{Call, Choice, Reply};
use super::client::Upstream;
use super::error::UpstreamError;
use super::prompt_rows::{PromptField, PromptRead, RawRows};
use super::wire::{NamedId, PlaceholderMap, Sampled, SamplingFields, StreamOptions, WireUsage, is_zero};

pub(super) const PATH: &str = "/v1/completions";

/// All but the prompt, which is written apart.
#[derive(Serialize)]
struct WireRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_interval: Option<usize>,
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

impl Call<'_> {
    pub(super) fn as_completion(&self, stream: bool) -> Result<Pieced, UpstreamError> {
        let constraints = &*self.constraints;
        let fields = WireRequest {
            model: self.origin.model.as_deref(),
            sampling: &self.sampling,
            n: self.n,
            max_tokens: self.max_tokens,
            min_tokens: constraints.min_tokens.min(self.max_tokens),
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs.map(|asked| asked.top),
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
            stream_interval: self.stream_interval,
        };
        let mut body = Pieces::object(&fields).map_err(|error| protocol(error.to_string()))?;
        body.text().extend_from_slice(br#","prompt":"#);
        match self.prompts.as_slice() {
            // The Rust frontend takes no list of prompts, not even one of a single prompt.
            [one] => one.put(&mut body),
            many => {
                for (index, prompt) in many.iter().enumerate() {
                    body.text().push(if index == 0 { b'[' } else { b',' });
                    prompt.put(&mut body);
                }
                body.text().push(b']');
            }
        }
        body.text().push(b'}');
        Ok(body.finish())
    }
}

fn protocol(reason: String) -> UpstreamError {
    UpstreamError::Protocol { path: PATH, reason }
}

#[derive(Deserialize)]
struct WireReply<P> {
    choices: Vec<WireChoice<P>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    system_fingerprint: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "P: Deserialize<'de>"))]
struct WireChoice<P> {
    index: usize,
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
    #[serde(default)]
    prompt_logprobs: Option<P>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    stop_reason: Option<serde_json::Value>,
}

/// The token strings are placeholders that hold ids.
#[derive(Deserialize)]
pub(super) struct WireLogprobs {
    tokens: Vec<NamedId>,
    token_logprobs: Vec<Option<f64>>,
    #[serde(default)]
    top_logprobs: Vec<Option<PlaceholderMap>>,
}

impl WireLogprobs {
    pub(super) fn sampled(self) -> Result<Vec<Sampled>, String> {
        let mut tops = self.top_logprobs.into_iter();
        self.tokens
            .into_iter()
            .zip(self.token_logprobs)
            .map(|(NamedId(token), logprob)| {
                let candidates = tops.next().flatten().map(|map| map.0).unwrap_or_default();
                let logprob = logprob.ok_or_else(|| format!("token {token} has no log-probability"))?;
                Ok(Sampled { token, logprob, rank: None, candidates })
            })
            .collect()
    }
}

impl Upstream {
    /// Asks for completions.
    ///
    /// # Errors
    /// When the server refuses, aborts, or its reply does not hold `n` choices for each prompt.
    pub async fn complete(&self, call: &Call<'_>) -> Result<Reply, UpstreamError> {
        let body = self.post_body(call.origin, PATH, call.as_completion(false)?).await?;
        read(&body, call)
    }
}

/// What a successful reply to `call` says.
pub(super) fn read(body: &[u8], call: &Call<'_>) -> Result<Reply, UpstreamError> {
    let reply = match call.prompt_logprobs.map(|asked| asked.read) {
        Some(PromptRead::AsWritten) => parse::<&RawValue>(body, call),
        _ => parse::<RawRows<'_>>(body, call),
    };
    let reply = reply.map_err(protocol)?;
    if reply.choices.iter().any(Choice::is_aborted) {
        return Err(UpstreamError::Aborted);
    }
    Ok(reply)
}

fn parse<'a, P: PromptField<'a>>(body: &'a [u8], call: &Call<'_>) -> Result<Reply, String> {
    let mut reply: WireReply<P> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    reply.choices.sort_by_key(|choice| choice.index);
    if reply.choices.len() != call.prompts.len() * call.n {
        return Err(format!("{} choices for {} prompts", reply.choices.len(), call.prompts.len()));
    }
    let rows = call.prompt_logprobs.map_or(0, |asked| asked.rows());
    let choices = reply.choices.into_iter().map(|choice| {
        let logprobs = choice.logprobs.ok_or_else(|| "no log-probabilities".to_owned())?;
        Ok(Choice {
            tokens: logprobs.sampled()?,
            prompt: choice.prompt_logprobs.map(|field| field.reply(rows)).transpose()?,
            finish_reason: choice.finish_reason,
            stop_reason: choice.stop_reason,
            version: None,
        })
    });
    Ok(Reply {
        choices: choices.collect::<Result<_, String>>()?,
        given_ids: None,
        cached_tokens: reply.usage.and_then(WireUsage::cached_tokens),
        fingerprint: reply.system_fingerprint,
        model: reply.model,
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::ids::Prompt;
    use super::super::origin::Origin;
    use super::super::wire::{Candidate, Constraints};
    use super::*;

    fn text_of(call: &Call<'_>, stream: bool) -> String {
        String::from_utf8(call.as_completion(stream).unwrap().concat()).unwrap()
    }

    #[test]
    fn the_request_leaves_out_what_was_not_asked_for() {
        let origin = Origin { model: Some("m".to_owned()), ..Origin::default() };
        let constraints = Constraints { logit_bias: vec![(7, -100.0)], ..Constraints::default() };
        let call = Call {
            prompts: vec![Prompt::from(&[1, 2]), Prompt::from(&[1, 2, 3])],
            sampling: Cow::Owned(SamplingFields { temperature: Some(1.0), ..SamplingFields::default() }),
            constraints: Cow::Borrowed(&constraints),
            logprobs: 5,
            ..Call::new(&origin, &[0; 0])
        };
        expect_test::expect![[r#"{"model":"m","temperature":1.0,"max_tokens":1,"logprobs":5,"logit_bias":{"7":-100.0},"return_tokens_as_token_ids":true,"stream":false,"prompt":[[1,2],[1,2,3]]}"#]]
        .assert_eq(&text_of(&call, false));
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
        expect_test::expect![[r#"{"n":3,"max_tokens":1,"min_tokens":1,"logprobs":0,"allowed_token_ids":[4,5],"bad_words":["no"],"stop_token_ids":[6],"ignore_eos":true,"priority":-3,"session_id":"s","return_tokens_as_token_ids":true,"stream":true,"prompt":[1]}"#]]
        .assert_eq(&text_of(&call, true));
    }

    #[test]
    fn tokens_come_by_id() {
        let text = r#"{"tokens": ["token_id:3"], "token_logprobs": [-0.5],
            "top_logprobs": [{"token_id:3": -0.5, "token_id:1": -1.5}]}"#;
        let logprobs: WireLogprobs = serde_json::from_str(text).unwrap();
        let candidate = |token, logprob| Candidate { token, logprob, rank: None };
        let candidates = vec![candidate(3, -0.5), candidate(1, -1.5)];
        assert_eq!(logprobs.sampled(), Ok(vec![Sampled { token: 3, logprob: -0.5, rank: None, candidates }]));
    }

    #[test]
    fn a_server_that_names_tokens_by_text_is_not_understood() {
        for (name, is_understood) in [(" the", false), ("7", false), ("token_id:x", false), ("token_id:7", true)] {
            let text = serde_json::json!({"tokens": [name], "token_logprobs": [-0.5]}).to_string();
            assert_eq!(serde_json::from_str::<WireLogprobs>(&text).is_ok(), is_understood, "{name}");
        }
    }
}
