//! Strategy B: the whole context is scored anew. Works everywhere and costs a prefill.

use std::borrow::Cow;

use super::sampler::scored;
use super::{Evidence, EvidenceFuture, Round, Strategy, Verifier, rows};
use crate::upstream::{Call, PromptReply, PromptScores, Reply, Upstream, UpstreamError};

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
                logprobs: round.terms.companions(),
                prompt_logprobs: Some(PromptScores::last(tokens.len() - round.start, round.row_length)),
                ..Call::new(&round.terms.origin, round.prompt(tokens.len()))
            };
            let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
            let reply = self.upstream.complete(&call).await?;
            let Reply { cached_tokens, fingerprint, model, choices, .. } = reply;
            let choice = choices.into_iter().next();
            let choice = choice.ok_or_else(|| protocol("no choice".to_owned()))?;
            let rows = choice.prompt.as_ref().and_then(PromptReply::rows);
            let given = rows.map_or(0, |rows| rows.given);
            let Some(rows) = rows.filter(|_| given == tokens.len()) else {
                return Err(protocol(format!("{given} rows for {} prompt tokens", tokens.len())));
            };
            let drafted = rows.last.iter().zip(round.proposal.tokens());
            let observations = drafted.map(|(row, draft)| {
                let row = row.as_deref().ok_or_else(|| protocol("a row is missing".to_owned()))?;
                rows::observation(row, round.row_length, draft, None)
                    .ok_or_else(|| protocol("a row is not a distribution".to_owned()))
            });
            let observations = observations.collect::<Result<_, _>>()?;
            let bonus = choice.tokens.into_iter().next().ok_or_else(|| protocol("no token".to_owned()))?;
            let bonus = scored(bonus, round.terms.companions());
            Ok(Evidence { cached_tokens, fingerprint, model, ..Evidence::new(observations, bonus) })
        })
    }
}
