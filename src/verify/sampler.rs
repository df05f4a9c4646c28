//! Tokens that the server draws itself: after the prompt, where no row can tell the target, and from a row's tail.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::Terms;
use crate::speculation::{Entry, Scored, TokenId};
use crate::upstream::{
    Call, Choice, Constraints, Prompt, PromptReply, PromptScores, Reply, Route, Sampled, SamplingFields, Tokens,
    Upstream, UpstreamError,
};

/// What the server said when it read a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefill {
    /// How many of its tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// The name under which it answers for the model.
    pub model: Option<String>,
    /// The prompt's own log-probabilities in the server's JSON, if asked for.
    pub prompt_logprobs: Option<Arc<str>>,
}

/// What is wanted of a prompt beside its first tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefillWishes {
    /// Its own log-probabilities, with so many of the likeliest tokens.
    pub prompt_logprobs: Option<usize>,
    /// Whether they name tokens by their text.
    pub detokenize: bool,
    /// Whether the client reads the reply as a stream. Then it is told how many tokens were cached for the first output;
    /// a whole reply tells of the last one, to which the others have left the whole prompt.
    pub is_streamed: bool,
}

/// How a stream is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamWishes {
    /// Whether its last event tells of the prefix cache.
    pub usage: bool,
    /// Tokens in an event; one, or whatever the server gives, if absent.
    pub interval: Option<usize>,
}

/// A token that the server sampled, and the policy version that it was sampled under, where the server tells.
pub type Drawn = (Scored, Option<String>);

/// Asks the server to sample.
#[derive(Debug, Clone)]
pub struct Sampler {
    upstream: Upstream,
    one_output_a_request: bool,
    max_logprobs: usize,
}

impl Sampler {
    /// A sampler on `upstream`, whose completions may be of one prompt and one output a request, and which reports at
    /// most `max_logprobs` companions of a token.
    #[must_use]
    pub fn new(upstream: Upstream, one_output_a_request: bool, max_logprobs: usize) -> Self {
        Self { upstream, one_output_a_request, max_logprobs }
    }

    /// One token after `context` under the client's own parameters.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample(&self, terms: &Terms, context: Prompt<'_>) -> Result<Drawn, UpstreamError> {
        let reply = self.ask(self.call(terms, context, 1), terms.route).await?;
        first_token(first_choice(reply)?, terms.companions())
    }

    /// The first token of each of `n` outputs after a prompt, with what the server said of the request as a whole.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn prefill(
        &self,
        terms: &Terms,
        prompt: Prompt<'_>,
        n: usize,
        wishes: PrefillWishes,
    ) -> Result<(Vec<Drawn>, Prefill), UpstreamError> {
        let PrefillWishes { prompt_logprobs, detokenize, is_streamed } = wishes;
        let prompt_logprobs = prompt_logprobs.map(PromptScores::as_written);
        let ask = |n| {
            let call = Call { n, prompt_logprobs, detokenize, ..self.call(terms, prompt, 1) };
            self.ask(call, terms.route)
        };
        let replies = if self.one_output_a_request {
            try_join_all((0..n).map(|_| ask(1))).await?
        } else if is_streamed && n > 1 {
            vec![ask(1).await?, ask(n - 1).await?]
        } else {
            vec![ask(n).await?]
        };
        let mut prefill = Prefill::default();
        let mut drawn = Vec::with_capacity(n);
        for (index, reply) in replies.into_iter().enumerate() {
            if index == 0 {
                let Reply { cached_tokens, fingerprint, model, choices, .. } = &reply;
                let written = choices.first().and_then(|choice| match choice.prompt.as_ref()? {
                    PromptReply::Written(text) => Some(Arc::clone(text)),
                    PromptReply::Rows(_) => None,
                });
                prefill = Prefill {
                    cached_tokens: *cached_tokens,
                    fingerprint: fingerprint.clone(),
                    model: model.clone(),
                    prompt_logprobs: written,
                };
            }
            for choice in reply.choices {
                drawn.push(first_token(choice, terms.companions())?);
            }
        }
        Ok((drawn, prefill))
    }

    /// One token after `context` at temperature 1, from outside of `banned`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample_outside(
        &self,
        terms: &Terms,
        context: Prompt<'_>,
        banned: &[TokenId],
    ) -> Result<Drawn, UpstreamError> {
        /// The lowest bias that vLLM does not clamp; e^-100 of the mass is no sample in the age of the universe.
        const BAN: f64 = -100.0;
        let logit_bias = banned.iter().map(|id| (*id, BAN)).collect();
        let call = Call {
            sampling: Cow::Owned(SamplingFields::neutral()),
            constraints: Cow::Owned(Constraints { logit_bias, ..Constraints::default() }),
            ..self.call(terms, context, 1)
        };
        let reply = self.ask(call, terms.route).await?;
        first_token(first_choice(reply)?, terms.logprobs)
    }

    /// One token after each of `prompts` under the client's own parameters; all under the version that is told, if any.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn sample_each(
        &self,
        terms: &Terms,
        prompts: Vec<Prompt<'_>>,
    ) -> Result<(Vec<Scored>, Option<String>), UpstreamError> {
        let drawn = if self.one_output_a_request || terms.route == Route::Generate {
            try_join_all(prompts.into_iter().map(|prompt| self.sample(terms, prompt))).await?
        } else {
            let reply = self.upstream.complete(&Call { prompts, ..self.call(terms, Prompt::from(&[]), 1) }).await?;
            let tokens = reply.choices.into_iter().map(|choice| first_token(choice, terms.companions()));
            tokens.collect::<Result<Vec<_>, _>>()?
        };
        let version = drawn.last().and_then(|(_, version)| version.clone());
        if drawn.iter().any(|(_, other)| *other != version) {
            return Err(mixed_versions());
        }
        Ok((drawn.into_iter().map(|(scored, _)| scored).collect(), version))
    }

    /// Up to `max_tokens` tokens after `context`, as they come; the last event tells of the prefix cache, if that is asked for.
    /// Dropping the stream aborts them.
    ///
    /// # Errors
    /// When the server refuses; later, as an item, when the stream breaks off.
    pub async fn decode(
        &self,
        terms: &Terms,
        context: Prompt<'_>,
        max_tokens: usize,
        wishes: StreamWishes,
    ) -> Result<Tokens, UpstreamError> {
        let StreamWishes { usage: stream_usage, interval: stream_interval } = wishes;
        let call = Call { stream_usage, stream_interval, ..self.call(terms, context, max_tokens) };
        self.upstream.decode(&call, terms.route).await
    }

    fn call<'a>(&self, terms: &'a Terms, context: Prompt<'a>, max_tokens: usize) -> Call<'a> {
        let logprobs = match terms.route {
            Route::Completions => terms.companions(),
            // This route counts the sampled token among those asked for.
            Route::Generate => (terms.companions() + 1).min(self.max_logprobs),
        };
        Call {
            sampling: Cow::Borrowed(&terms.fields),
            constraints: Cow::Borrowed(&terms.constraints),
            max_tokens,
            logprobs,
            ..Call::new(&terms.origin, context)
        }
    }

    async fn ask(&self, call: Call<'_>, route: Route) -> Result<Reply, UpstreamError> {
        match route {
            Route::Completions => self.upstream.complete(&call).await,
            Route::Generate => self.upstream.generate(&call).await,
        }
    }
}

/// The weights were changed, by a request that did not come this way, between the calls of one verification.
pub(super) fn mixed_versions() -> UpstreamError {
    let reason = "the policy changed within one verification".to_owned();
    UpstreamError::Protocol { path: "/inference/v1/generate", reason }
}

fn no_token() -> UpstreamError {
    UpstreamError::Protocol { path: "/v1/completions", reason: "no token was sampled".to_owned() }
}

fn first_choice(reply: Reply) -> Result<Choice, UpstreamError> {
    reply.choices.into_iter().next().ok_or_else(no_token)
}

fn first_token(choice: Choice, logprobs: usize) -> Result<Drawn, UpstreamError> {
    let sampled = choice.tokens.into_iter().next().ok_or_else(no_token)?;
    Ok((scored(sampled, logprobs), choice.version))
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
    let rank = sampled.rank.or_else(|| top.iter().position(|entry| entry.token == token).map(|at| at as u32 + 1));
    Scored { token: sampled.token, logprob: sampled.logprob, rank, top }
}
