//! Tokens that the server draws itself: after the prompt, where no row can tell the target, and from a row's tail.

use std::borrow::Cow;

use futures_util::Stream;

use super::Terms;
use crate::speculation::{Entry, Scored, TokenId};
use crate::upstream::stream::DecodedChunk;
use crate::upstream::{CompletionCall, Sampled, SamplingFields, Upstream, UpstreamError};

/// What the server said when it read a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefill {
    /// How many of its tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The name under which it answers for the model.
    pub model: Option<String>,
}

/// Asks the server to sample.
#[derive(Debug, Clone)]
pub struct Sampler {
    upstream: Upstream,
    one_prompt_a_request: bool,
}

impl Sampler {
    /// A sampler on `upstream`, which may take only one prompt a request.
    #[must_use]
    pub fn new(upstream: Upstream, one_prompt_a_request: bool) -> Self {
        Self { upstream, one_prompt_a_request }
    }

    /// One token after `context` under the client's own parameters.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample(&self, terms: &Terms, context: &[TokenId]) -> Result<Scored, UpstreamError> {
        let call = call(terms, vec![Cow::Borrowed(context)], 1);
        self.first(&call, terms.logprobs).await
    }

    /// The first token after a prompt, with what the server said of the request as a whole. The client's stop tokens
    /// make no difference to one token, but let the server refuse those that do not exist.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn prefill(
        &self,
        terms: &Terms,
        prompt: &[TokenId],
        stop_token_ids: &[TokenId],
    ) -> Result<(Scored, Prefill), UpstreamError> {
        let call = CompletionCall { stop_token_ids, ..call(terms, vec![Cow::Borrowed(prompt)], 1) };
        let reply = self.upstream.complete(&call).await?;
        let prefill =
            Prefill { cached_tokens: reply.cached_tokens, fingerprint: reply.fingerprint, model: reply.model };
        let tokens = reply.choices.into_iter().next().map(|choice| choice.tokens).unwrap_or_default();
        Ok((first_token(tokens, terms.logprobs)?, prefill))
    }

    /// One token after `context` at temperature 1, from outside of `banned`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample_outside(
        &self,
        terms: &Terms,
        context: &[TokenId],
        banned: &[TokenId],
    ) -> Result<Scored, UpstreamError> {
        /// The lowest bias that vLLM does not clamp; e^-100 of the mass is no sample in the age of the universe.
        const BAN: f64 = -100.0;
        let bias: Vec<_> = banned.iter().map(|id| (*id, BAN)).collect();
        let call = CompletionCall {
            sampling: Cow::Owned(SamplingFields::neutral()),
            logit_bias: &bias,
            ..call(terms, vec![Cow::Borrowed(context)], 1)
        };
        self.first(&call, terms.logprobs).await
    }

    /// One token after each of `prompts` under the client's own parameters.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample_each(&self, terms: &Terms, prompts: Vec<&[TokenId]>) -> Result<Vec<Scored>, UpstreamError> {
        if self.one_prompt_a_request {
            let calls = prompts.into_iter().map(|prompt| self.sample(terms, prompt));
            return futures_util::future::try_join_all(calls).await;
        }
        let call = call(terms, prompts.into_iter().map(Cow::Borrowed).collect(), 1);
        let reply = self.upstream.complete(&call).await?;
        reply.choices.into_iter().map(|choice| first_token(choice.tokens, terms.logprobs)).collect()
    }

    /// Up to `max_tokens` tokens after `context`, as they come. Dropping the stream aborts them.
    ///
    /// # Errors
    /// When the server refuses; later, as an item, when the stream breaks off.
    pub async fn decode(
        &self,
        terms: &Terms,
        context: &[TokenId],
        max_tokens: usize,
        stop_token_ids: &[TokenId],
        ignore_eos: bool,
    ) -> Result<impl Stream<Item = Result<DecodedChunk, UpstreamError>> + Send + use<>, UpstreamError> {
        let call =
            CompletionCall { stop_token_ids, ignore_eos, ..call(terms, vec![Cow::Borrowed(context)], max_tokens) };
        self.upstream.decode(&call).await
    }

    async fn first(&self, call: &CompletionCall<'_>, logprobs: usize) -> Result<Scored, UpstreamError> {
        let reply = self.upstream.complete(call).await?;
        let tokens = reply.choices.into_iter().next().map(|choice| choice.tokens).unwrap_or_default();
        first_token(tokens, logprobs)
    }
}

fn call<'a>(terms: &'a Terms, prompts: Vec<Cow<'a, [TokenId]>>, max_tokens: usize) -> CompletionCall<'a> {
    CompletionCall {
        origin: &terms.origin,
        prompts,
        sampling: Cow::Borrowed(&terms.fields),
        max_tokens,
        logprobs: terms.logprobs,
        prompt_logprobs: None,
        logit_bias: &[],
        stop_token_ids: &[],
        ignore_eos: false,
    }
}

fn first_token(tokens: Vec<Sampled>, logprobs: usize) -> Result<Scored, UpstreamError> {
    tokens
        .into_iter()
        .next()
        .map(|sampled| scored(sampled, logprobs))
        .ok_or_else(|| UpstreamError::Protocol { path: "/v1/completions", reason: "no token was sampled".to_owned() })
}

/// A sampled token with its `logprobs` likeliest companions, in the server's order.
#[must_use]
pub fn scored(sampled: Sampled, logprobs: usize) -> Scored {
    let mut top: Vec<Entry> = sampled.candidates.iter().map(|c| Entry { token: c.token, logprob: c.logprob }).collect();
    // Stable, so that ties stay in the server's order. Where there is one too many, the sampled token came on top of the
    // N, none of which is less likely: it is last, also among its equals.
    let token = sampled.token;
    top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob).then((a.token == token).cmp(&(b.token == token))));
    top.truncate(logprobs);
    Scored { token: sampled.token, logprob: sampled.logprob, top }
}
