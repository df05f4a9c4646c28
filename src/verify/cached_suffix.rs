//! Strategy A: `/inference/v1/generate` scores the drafts and computes only what the prefix cache lacks.

use std::borrow::Cow;

use super::rows;
use super::sampler::{mixed_versions, scored};
use super::{Evidence, EvidenceFuture, Round, Sampler, Strategy, Verifier};
use crate::speculation::{Observation, Scored};
use crate::upstream::{Call, PromptScores, Reply, Runner, Sampled, SamplingFields, Upstream, UpstreamError};

/// Verification by the rows of the drafts, at the cost of computing the drafts.
#[derive(Debug, Clone)]
pub struct CachedSuffix {
    upstream: Upstream,
    sampler: Sampler,
    runner: Runner,
    max_logprobs: usize,
}

impl CachedSuffix {
    /// Verification by `upstream`, whose rows come as `runner` gives them and list at most `max_logprobs` tokens.
    #[must_use]
    pub fn new(upstream: Upstream, sampler: Sampler, runner: Runner, max_logprobs: usize) -> Self {
        Self { upstream, sampler, runner, max_logprobs }
    }

    /// Scores the first `end` tokens, computing everything where the server cannot print what it has not computed.
    ///
    /// Which of the two happened is told with the reply.
    async fn score(&self, round: &Round<'_>, end: usize) -> Result<(Reply, bool), UpstreamError> {
        let neutral = SamplingFields::default();
        let mut call = Call {
            sampling: Cow::Borrowed(round.terms.resolved.as_ref().unwrap_or(&neutral)),
            // This route counts the sampled token among those asked for.
            logprobs: (round.terms.companions() + 1).min(self.max_logprobs),
            prompt_logprobs: Some(PromptScores::last(end - round.start, round.row_length)),
            skip_cache: Some(false),
            ..Call::new(&round.terms.origin, round.prompt(end))
        };
        match self.upstream.generate(&call).await {
            Err(error) if error.is_unprintable_row() => {
                call.skip_cache = Some(true);
                Ok((self.upstream.generate(&call).await?, true))
            }
            reply => Ok((reply?, false)),
        }
    }

    /// The token sampled after all drafts, with its likeliest companions.
    ///
    /// Where the client wants as many as the server gives at most, a token from below them has taken the last one's
    /// place; the server is asked again for the list, which does not depend on what it samples then.
    async fn bonus(&self, round: &Round<'_>, sampled: Sampled) -> Result<Scored, UpstreamError> {
        let wanted = round.terms.companions();
        let is_last = sampled.candidates.iter().all(|candidate| candidate.logprob >= sampled.logprob);
        let mut bonus = scored(sampled, wanted);
        if wanted > 0 && wanted >= self.max_logprobs && is_last {
            bonus.top = self.sampler.sample(round.terms, round.prompt(round.tokens.len())).await?.0.top;
        }
        Ok(bonus)
    }

    fn observe(&self, round: &Round<'_>, reply: &Reply, length: usize, index: usize) -> Option<Observation> {
        let draft = round.proposal.drafts.get(index - round.start)?.token;
        let rows = reply.choices.first()?.prompt.as_ref()?.rows()?;
        let rows = rows::Aligned { rows, cached_tokens: reply.cached_tokens, runner: self.runner };
        let row = rows::computed_row(rows, length, index)?;
        rows::observation(row, round.row_length, draft)
    }

    /// What the target says at `index`, whose row the prefix cache has swallowed.
    ///
    /// A draft that was drawn must be judged by its row, since whether the row was lost depends on the draft. A prompt
    /// that ends with the draft leaves the draft's own block to be computed, for a prompt is never cached to its
    /// end; so the row is there, unless the context alone is cached right up to it. Then, and for drafts that
    /// were not drawn, the server's own sample decides.
    async fn recover(&self, round: &Round<'_>, index: usize) -> Result<Recovered, UpstreamError> {
        let mut recomputed = false;
        if !round.proposal.is_certain() {
            let (reply, anew) = self.score(round, index + 1).await?;
            if let Some(observation) = self.observe(round, &reply, index + 1, index) {
                let version = reply.choices.into_iter().next().and_then(|choice| choice.version);
                return Ok(Recovered { observation, recomputed: anew, version });
            }
            recomputed = anew;
        }
        let (sampled, version) = self.sampler.sample(round.terms, round.prompt(index)).await?;
        Ok(Recovered { observation: Observation::Sampled(sampled), recomputed, version })
    }
}

/// What was found out about a position whose row was lost.
struct Recovered {
    observation: Observation,
    /// Whether the server had to compute everything anew.
    recomputed: bool,
    /// The policy version that said it, where the server tells.
    version: Option<String>,
}

impl Verifier for CachedSuffix {
    fn strategy(&self) -> Strategy {
        Strategy::CachedSuffix
    }

    fn verify<'a>(&'a self, round: Round<'a>) -> EvidenceFuture<'a> {
        Box::pin(async move {
            let (tokens, start) = (round.tokens, round.start);
            let (reply, mut recomputed) =
                self.score(&round, tokens.len()).await.map(|(reply, anew)| (reply, usize::from(anew)))?;
            let mut observations: Vec<Option<Observation>> =
                (start..tokens.len()).map(|index| self.observe(&round, &reply, tokens.len(), index)).collect();
            let lost: Vec<usize> =
                (start..tokens.len()).filter(|index| observations[index - start].is_none()).collect();
            let mut versions = Vec::new();
            let recovered: Vec<Observation> = if round.proposal.is_certain() && lost.len() > 1 {
                let prompts = lost.iter().map(|index| round.prompt(*index)).collect();
                let (samples, version) = self.sampler.sample_each(round.terms, prompts).await?;
                versions.push(version);
                samples.into_iter().map(Observation::Sampled).collect()
            } else {
                let each = lost.iter().map(|index| self.recover(&round, *index));
                let all = futures_util::future::try_join_all(each).await?;
                recomputed += all.iter().filter(|recovered| recovered.recomputed).count();
                versions.extend(all.iter().map(|recovered| recovered.version.clone()));
                all.into_iter().map(|recovered| recovered.observation).collect()
            };
            let lost_rows = lost.len();
            for (index, observation) in lost.into_iter().zip(recovered) {
                observations[index - start] = Some(observation);
            }
            let protocol = || UpstreamError::Protocol { path: "/inference/v1/generate", reason: "no token".to_owned() };
            let Reply { choices, cached_tokens, fingerprint, model } = reply;
            let choice = choices.into_iter().next().ok_or_else(protocol)?;
            // Where the route that sampled does not tell, nobody can.
            if versions.into_iter().flatten().any(|version| choice.version.as_ref() != Some(&version)) {
                return Err(mixed_versions());
            }
            let sampled = choice.tokens.into_iter().next().ok_or_else(protocol)?;
            let bonus = self.bonus(&round, sampled).await?;
            let observations = observations.into_iter().flatten().collect();
            let version = choice.version;
            let told = Evidence { version, cached_tokens, fingerprint, model, ..Evidence::new(observations, bonus) };
            Ok(Evidence { lost_rows, recomputed, ..told })
        })
    }
}
