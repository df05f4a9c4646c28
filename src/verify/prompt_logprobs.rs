//! Strategy B: the whole context is scored anew. Works everywhere and costs a prefill.

use std::borrow::Cow;

use super::sampler::scored;
use super::{Evidence, EvidenceFuture, Round, Strategy, Verifier, rows};
use crate::upstream::{Call, Upstream, UpstreamError};

const PATH: &str = "/v1/completions";

/// Verification by `/v1/completions` with `prompt_logprobs`, which never reads the prefix cache.
#[derive(Debug, Clone)]
pub struct PromptLogprobs {
    upstream: Upstream,
}

impl PromptLogprobs {
    /// Verification by `upstream`.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream }
    }
}

impl Verifier for PromptLogprobs {
    fn strategy(&self) -> Strategy {
        Strategy::PromptLogprobs
    }

    fn verify<'a>(&'a self, round: Round<'a>) -> EvidenceFuture<'a> {
        Box::pin(async move {
            let tokens = round.tokens;
            let call = Call {
                sampling: Cow::Borrowed(&round.terms.fields),
                logprobs: round.terms.logprobs,
                prompt_logprobs: Some(round.row_length),
                ..Call::new(&round.terms.origin, tokens)
            };
            let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
            let choice = self.upstream.complete(&call).await?.choices.into_iter().next();
            let choice = choice.ok_or_else(|| protocol("no choice".to_owned()))?;
            let prompt_rows = choice.prompt_rows.unwrap_or_default();
            if prompt_rows.len() != tokens.len() {
                return Err(protocol(format!("{} rows for {} prompt tokens", prompt_rows.len(), tokens.len())));
            }
            let drafted = prompt_rows[round.start..].iter().zip(round.proposal.tokens());
            let observations = drafted.map(|(row, draft)| {
                let row = row.as_deref().ok_or_else(|| protocol("a row is missing".to_owned()))?;
                rows::observation(row, round.row_length, draft)
                    .ok_or_else(|| protocol("a row is not a distribution".to_owned()))
            });
            let observations = observations.collect::<Result<_, _>>()?;
            let bonus = choice.tokens.into_iter().next().ok_or_else(|| protocol("no token".to_owned()))?;
            let bonus = scored(bonus, round.terms.logprobs);
            Ok(Evidence { observations, bonus, version: None, lost_rows: 0, recomputed: 0 })
        })
    }
}
