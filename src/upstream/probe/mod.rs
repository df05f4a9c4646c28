//! What a server can do, found by asking it: versions and flags say less than one try does.

mod chat;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;

use crate::upstream::call::Call;
use crate::upstream::capabilities::{Capabilities, EndToken, GenerateRoute, GenerateSupport, Runner};
use crate::upstream::client::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::origin::Origin;
use crate::upstream::prompt_rows::PromptScores;
use crate::upstream::wire::{Candidate, Constraints, Sampled, SamplingFields};

/// How long a server that can serve may take to say so: it computes nothing for it.
const HEALTH_TIME: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Models {
    data: Vec<ServedModel>,
}

/// A model as `/v1/models` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServedModel {
    /// The name by which requests call it.
    pub id: String,
    /// Its folder or hub name on the server.
    #[serde(default)]
    pub root: Option<String>,
    /// The longest context.
    #[serde(default)]
    pub max_model_len: Option<usize>,
}

impl Upstream {
    /// Asks the server whether it can serve. One that lets wait for the answer cannot.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check_health(&self) -> Result<(), UpstreamError> {
        let silent = || {
            let reason = format!("its health check brought no answer within {} seconds", HEALTH_TIME.as_secs());
            UpstreamError::Unreachable { url: self.url().to_owned(), reason }
        };
        tokio::time::timeout(HEALTH_TIME, self.get("/health")).await.map_err(|_| silent())?.map(drop)
    }

    /// The model that the server serves, or the first of them.
    ///
    /// # Errors
    /// When the server cannot be reached or serves none.
    pub async fn served_model(&self) -> Result<ServedModel, UpstreamError> {
        const PATH: &str = "/v1/models";
        let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
        let models: Models =
            serde_json::from_slice(&self.get(PATH).await?).map_err(|error| protocol(error.to_string()))?;
        models.data.into_iter().next().ok_or_else(|| protocol("no model is served".to_owned()))
    }

    /// Finds out what the server can do. `added_tokens` are the ids that may end a sequence.
    ///
    /// Costs some twenty short requests, plus one for each of those ids.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses ordinary completions.
    pub async fn probe(&self, added_tokens: &[u32]) -> Result<Capabilities, UpstreamError> {
        let version = self.get("/version").await.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let version: BTreeMap<String, serde_json::Value> = version.unwrap_or_default();
        let model = self.served_model().await?;
        let max_model_len = model.max_model_len.unwrap_or(usize::MAX);
        let origin = self.own_origin(Some(model.id.clone()));
        let prompt = self.probe_prompt(&origin, max_model_len).await?;
        let max_logprobs = self.max_logprobs(&origin, &prompt).await?;
        let (generate, scored_by) = self.generate_support(&origin, &prompt).await?;
        let (tokens_as_ids, tells_more_than_tokens) = self.ways_of_telling(&origin, &prompt[..1]).await?;
        let (chat, limits) = self.chat_support(&origin, max_model_len).await?;
        Ok(Capabilities {
            version: version.get("version").and_then(|value| value.as_str()).map(str::to_owned),
            rust_frontend: version.contains_key("rust_frontend_version"),
            model: model.id,
            root: model.root,
            max_model_len,
            max_logprobs,
            raw_logprobs: self.raw_logprobs(&origin, &prompt, max_logprobs.min(5)).await?,
            prompt_logprobs: self.prompt_logprobs(&origin, &prompt).await?,
            generate,
            chat,
            limits,
            usage_unasked: self.usage_unasked(&origin, &prompt[..1]).await?,
            weight_version: match self.weight_version().await.or(scored_by) {
                Some(version) => version,
                // What vLLM calls the weights that it started with.
                None => "default".to_owned(),
            },
            defaults: self.sampling_defaults(&origin).await,
            tokens_as_ids,
            tells_more_than_tokens,
            end_tokens: self.end_tokens(&origin, &prompt[..1], added_tokens).await?,
        })
    }

    /// Some three hundred tokens, so that whole blocks of any size in use (16 to 128) get cached.
    async fn probe_prompt(&self, origin: &Origin, max_model_len: usize) -> Result<Vec<u32>, UpstreamError> {
        let text = "One, two, three. ".repeat(60);
        let mut prompt = self.tokenize(origin, &text, false).await?;
        prompt.truncate(max_model_len.saturating_sub(8).max(1));
        if prompt.is_empty() {
            return Err(UpstreamError::Protocol { path: "/tokenize", reason: "no tokens".to_owned() });
        }
        Ok(prompt)
    }

    /// Asks for more than any server gives: the refusal names the limit.
    async fn max_logprobs(&self, origin: &Origin, prompt: &[u32]) -> Result<usize, UpstreamError> {
        let ask = async |logprobs| {
            self.complete(&Call { logprobs, ..Call::new(origin, &prompt[..prompt.len().min(4)]) }).await
        };
        let refusal = match ask(10_000_000).await {
            Err(UpstreamError::Status(refusal)) if refusal.status.is_client_error() => refusal.body,
            Err(error) => return Err(error),
            Ok(reply) => return Ok(reply.choices.first().map_or(0, |choice| most_candidates(&choice.tokens))),
        };
        if let Some(limit) = limit_in(&String::from_utf8_lossy(&refusal)) {
            return Ok(limit);
        }
        for guess in [20, 10, 5, 1] {
            if ask(guess).await.is_ok() {
                return Ok(guess);
            }
        }
        Ok(0)
    }

    /// At half the temperature, processed log-probabilities spread twice as far and raw ones as far as before.
    async fn raw_logprobs(&self, origin: &Origin, prompt: &[u32], n: usize) -> Result<bool, UpstreamError> {
        if n < 2 {
            return Ok(false);
        }
        let ask = async |temperature| {
            let sampling = SamplingFields { temperature: Some(temperature), ..SamplingFields::neutral() };
            let call = Call { sampling: Cow::Owned(sampling), logprobs: n, ..Call::new(origin, prompt) };
            let reply = self.complete(&call).await?;
            let sampled = reply.choices.into_iter().next().and_then(|choice| choice.tokens.into_iter().next());
            let mut candidates = sampled.map(|sampled| sampled.candidates).unwrap_or_default();
            candidates.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            candidates.truncate(n);
            Ok::<_, UpstreamError>(candidates)
        };
        let (warm, cool) = (ask(1.0).await?, ask(0.5).await?);
        let spread = |list: &[Candidate]| Some(list.first()?.logprob - list.get(n - 1)?.logprob);
        let mass: f64 = warm.iter().map(|candidate| candidate.logprob.exp()).sum();
        let same_spread = match (spread(&warm), spread(&cool)) {
            (Some(warm), Some(cool)) => cool < 1.5 * warm,
            _ => false,
        };
        Ok(mass <= 1.001 && same_spread)
    }

    async fn prompt_logprobs(&self, origin: &Origin, prompt: &[u32]) -> Result<bool, UpstreamError> {
        let prompt = &prompt[..prompt.len().min(4)];
        let call = Call { prompt_logprobs: Some(PromptScores::last(0, 1)), logprobs: 1, ..Call::new(origin, prompt) };
        match self.complete(&call).await {
            Ok(reply) => Ok(reply
                .choices
                .first()
                .and_then(|choice| choice.prompt.as_ref()?.rows())
                .is_some_and(|rows| rows.given == prompt.len())),
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Scores the same prompt until its blocks come from the cache, and looks at what became of their rows.
    ///
    /// Also tells the policy version that scored it.
    async fn generate_support(
        &self,
        origin: &Origin,
        prompt: &[u32],
    ) -> Result<(GenerateSupport, Option<String>), UpstreamError> {
        let call = Call {
            sampling: Cow::Owned(greedy()),
            logprobs: 1,
            prompt_logprobs: Some(PromptScores::last(0, 1)),
            skip_cache: Some(false),
            ..Call::new(origin, prompt)
        };
        let unusable = |route| {
            let runner = Runner::Unknown;
            let (reports_cached_tokens, prints_badly, scores_given_ids) = (false, false, false);
            (GenerateSupport { route, runner, reports_cached_tokens, prints_badly, scores_given_ids }, None)
        };
        let mut version = None;
        let (mut runner, mut reports_cached_tokens, mut prints_badly) = (Runner::Unknown, false, false);
        for _ in 0..3 {
            match self.generate(&call).await {
                Ok(reply) => {
                    reports_cached_tokens |= reply.cached_tokens.is_some();
                    let choice = reply.choices.into_iter().next();
                    let rows =
                        choice.as_ref().and_then(|choice| choice.prompt.as_ref()?.rows()).map_or(0, |rows| rows.given);
                    version = choice.and_then(|choice| choice.version);
                    if rows < prompt.len() {
                        runner = Runner::V2;
                    } else if reply.cached_tokens.is_some_and(|cached| cached > 0) {
                        runner = Runner::V1;
                    }
                }
                Err(error) if error.is_unprintable_row() => {
                    runner = Runner::V1;
                    prints_badly = true;
                    // Where every cached row is unprintable, only a reply without any tells what the server reports.
                    let anew = self.generate(&Call { skip_cache: Some(true), ..call.clone() }).await;
                    reports_cached_tokens |= anew.is_ok_and(|reply| reply.cached_tokens.is_some());
                }
                Err(UpstreamError::Status(refusal)) if refusal.status.is_client_error() => {
                    let message = message_of(&refusal.body);
                    return Ok(unusable(match refusal.status.as_u16() {
                        404 | 405 => GenerateRoute::Missing,
                        403 => GenerateRoute::Disabled { message },
                        _ => GenerateRoute::Failing { message },
                    }));
                }
                Err(UpstreamError::Protocol { reason, .. }) => {
                    return Ok(unusable(GenerateRoute::Failing { message: reason }));
                }
                Err(error) => return Err(error),
            }
        }
        let scores_given_ids = self.scores_given_ids(origin, prompt).await?;
        let route = GenerateRoute::Available;
        Ok((GenerateSupport { route, runner, reports_cached_tokens, prints_badly, scores_given_ids }, version))
    }

    /// Has the server score the prompt's own last token as one of its likeliest and as a given id: both must agree.
    ///
    /// Servers that are too old take no notice of given ids, and the V1 runner refuses them.
    async fn scores_given_ids(&self, origin: &Origin, prompt: &[u32]) -> Result<bool, UpstreamError> {
        const ROUNDING: f64 = 1e-2;
        let prompt = &prompt[..prompt.len().min(4)];
        let Some(last) = prompt.last().copied().filter(|_| prompt.len() > 1) else { return Ok(false) };
        let ids = [vec![last]];
        let call = Call {
            sampling: Cow::Owned(greedy()),
            prompt_logprobs: Some(PromptScores::last(1, 1)),
            given_ids: &ids,
            skip_cache: Some(true),
            ..Call::new(origin, prompt)
        };
        let reply = match self.generate(&call).await {
            Ok(reply) => reply,
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok(false),
        };
        let given = reply.given_ids.as_ref().and_then(|given| given.row(0)?.first().copied());
        let row = reply.choices.first().and_then(|choice| choice.prompt.as_ref()?.rows()?.last.last()?.as_ref());
        let own = row.and_then(|row| row.iter().find(|candidate| candidate.token == last));
        let agree = |(given, own): (f32, &Candidate)| (f64::from(given) - own.logprob).abs() < ROUNDING;
        Ok(given.zip(own).is_some_and(agree))
    }

    /// The render route shows the parameters that a bare request ends up with.
    async fn sampling_defaults(&self, origin: &Origin) -> Option<SamplingFields> {
        #[derive(serde::Serialize)]
        struct Request<'a> {
            model: Option<&'a str>,
            prompt: &'a str,
        }
        #[derive(Deserialize)]
        struct Rendered {
            sampling_params: Shown,
        }
        #[derive(Deserialize)]
        struct Shown {
            #[serde(default)]
            temperature: Option<f64>,
            #[serde(default)]
            top_k: Option<i64>,
            #[serde(default)]
            top_p: Option<f64>,
            #[serde(default)]
            min_p: Option<f64>,
            #[serde(default)]
            repetition_penalty: Option<f64>,
            #[serde(default)]
            presence_penalty: Option<f64>,
            #[serde(default)]
            frequency_penalty: Option<f64>,
            #[serde(default)]
            stop_token_ids: Option<Vec<u32>>,
        }
        let request = Request { model: origin.model.as_deref(), prompt: "a" };
        let body = self.post(origin, "/v1/completions/render", &request).await.ok()?;
        let shown = serde_json::from_slice::<Vec<Rendered>>(&body).ok()?.into_iter().next()?.sampling_params;
        // Defaults that the sidecar cannot restate in its own calls are as good as unknown.
        let restatable = shown.presence_penalty.unwrap_or(0.0) == 0.0
            && shown.frequency_penalty.unwrap_or(0.0) == 0.0
            && shown.stop_token_ids.is_none_or(|ids| ids.is_empty());
        restatable.then_some(SamplingFields {
            temperature: Some(shown.temperature.unwrap_or(1.0)),
            top_k: Some(shown.top_k.unwrap_or(0)),
            top_p: Some(shown.top_p.unwrap_or(1.0)),
            min_p: Some(shown.min_p.unwrap_or(0.0)),
            repetition_penalty: Some(shown.repetition_penalty.unwrap_or(1.0)),
        })
    }

    /// Whether a bare reply names tokens by their ids, and whether it tells of them what only the server knows.
    async fn ways_of_telling(&self, origin: &Origin, prompt: &[u32]) -> Result<(bool, bool), UpstreamError> {
        #[derive(serde::Serialize)]
        struct Request<'a> {
            model: Option<&'a str>,
            prompt: &'a [u32],
            max_tokens: usize,
            logprobs: usize,
        }
        let request = Request { model: origin.model.as_deref(), prompt, max_tokens: 1, logprobs: 0 };
        let body = self.post(origin, "/v1/completions", &request).await?;
        let reply: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = reply.pointer("/choices/0/logprobs/tokens/0").and_then(|token| token.as_str());
        let routed_experts = reply.pointer("/choices/0/routed_experts").is_some_and(|experts| !experts.is_null());
        Ok((token.is_some_and(|token| token.starts_with("token_id:")), routed_experts))
    }

    /// Whether streams end with the usage although nobody asked (`--enable-force-include-usage`).
    async fn usage_unasked(&self, origin: &Origin, prompt: &[u32]) -> Result<bool, UpstreamError> {
        let chunks = self.events(origin, "/v1/completions", Call::new(origin, prompt).as_completion(true)?).await?;
        Ok(chunks.iter().any(|chunk| chunk.get("usage").is_some_and(|usage| !usage.is_null())))
    }

    /// What `/weight_info` says; only servers in development mode have it.
    async fn weight_version(&self) -> Option<String> {
        let body = self.get("/weight_info").await.ok()?;
        let info: serde_json::Value = serde_json::from_slice(&body).ok()?;
        info.get("weight_version")?.as_str().map(str::to_owned)
    }

    /// Makes the server sample each candidate once and looks whether that ends the sequence.
    async fn end_tokens(
        &self,
        origin: &Origin,
        prompt: &[u32],
        candidates: &[u32],
    ) -> Result<BTreeMap<u32, EndToken>, UpstreamError> {
        const AT_ONCE: usize = 8;
        let try_one = |id: u32| async move {
            let constraints = Constraints { logit_bias: vec![(id, 100.0)], ..Constraints::default() };
            let call = Call {
                sampling: Cow::Owned(greedy()),
                constraints: Cow::Owned(constraints),
                ..Call::new(origin, prompt)
            };
            let choice = match self.complete(&call).await {
                Ok(reply) => reply.choices.into_iter().next(),
                // An id outside the vocabulary ends nothing.
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => None,
                Err(error) => return Err(error),
            };
            let ended = choice.filter(|choice| {
                choice.finish_reason.as_deref() == Some("stop") && choice.tokens.first().is_some_and(|t| t.token == id)
            });
            Ok(ended.map(|choice| match choice.stop_reason {
                None | Some(serde_json::Value::Null) => (id, EndToken::Primary),
                Some(_) => (id, EndToken::Additional),
            }))
        };
        let found: Vec<_> = futures_util::stream::iter(candidates.iter().copied().map(try_one))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }
}

fn greedy() -> SamplingFields {
    SamplingFields { temperature: Some(0.0), ..SamplingFields::default() }
}

fn most_candidates(tokens: &[Sampled]) -> usize {
    tokens.iter().map(|token| token.candidates.len()).max().unwrap_or(0)
}

/// The number in "…, which is greater than max allowed: 20".
fn limit_in(refusal: &str) -> Option<usize> {
    let (_, after) = refusal.split_once("max allowed: ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The message of an error in OpenAI's shape, or the whole body.
fn message_of(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|value| value.pointer("/error/message")).and_then(|value| value.as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_the_limit() {
        let text = "Requested sample logprobs of 10000000, which is greater than max allowed: 20 (parameter=logprobs)";
        assert_eq!(limit_in(text), Some(20));
        assert_eq!(limit_in("no"), None);
    }
}
