//! Strategy A: `/inference/v1/generate` scores the drafts and computes only what the prefix cache lacks.

use std::borrow::Cow;

use super::rows;
use super::sampler::{mixed_versions, scored};
use super::{Evidence, EvidenceFuture, Round, Sampler, Strategy, Verifier};
use crate::speculation::{DraftDistribution, Observation, Proposal, Scored, TokenId};
use crate::upstream::{
    Call, GenerateSupport, PromptScores, Reply, Runner, Sampled, SamplingFields, Upstream, UpstreamError,
};

/// Rows that are lost of a proposal of more drafts than this are not asked for one by one.
const MOST_ONE_BY_ONE: usize = 16;
/// The smallest block of any server's prefix cache that is in use.
const LEAST_BLOCK: usize = 16;

/// Verification by the rows of the drafts, at the cost of computing the drafts.
#[derive(Debug, Clone)]
pub struct CachedSuffix {
    upstream: Upstream,
    sampler: Sampler,
    runner: Runner,
    scores_given_ids: bool,
    max_logprobs: usize,
}

impl CachedSuffix {
    /// Verification by `upstream`, whose route is as `support` says and whose rows list at most `max_logprobs` tokens.
    #[must_use]
    pub fn new(upstream: Upstream, sampler: Sampler, support: &GenerateSupport, max_logprobs: usize) -> Self {
        let GenerateSupport { runner, scores_given_ids, .. } = *support;
        Self { upstream, sampler, runner, scores_given_ids, max_logprobs }
    }

    /// The ids to have scored in the place of each draft: those that its own distribution lists, where that is not the
    /// whole of it. Empty where there are none, or more than the server takes; and where whole blocks come before the
    /// drafts, all of which may be cached: then the server would tell of none.
    fn given_ids(&self, start: usize, proposal: &Proposal) -> Vec<Vec<TokenId>> {
        if !self.scores_given_ids || start.is_multiple_of(LEAST_BLOCK) {
            return Vec::new();
        }
        let listed = |q: &DraftDistribution| match q {
            DraftDistribution::Partial(list) => list.iter().map(|(id, _)| *id).collect(),
            DraftDistribution::PointMass | DraftDistribution::Listed(_) => Vec::new(),
        };
        let ids: Vec<Vec<TokenId>> = proposal.drafts.iter().map(|draft| listed(&draft.q)).collect();
        let most = ids.iter().map(Vec::len).max().unwrap_or(0);
        if (1..=self.max_logprobs).contains(&most) { ids } else { Vec::new() }
    }

    /// Scores the first `end` tokens, and the given ids in the places of the last of them: what the prefix cache lacks, or
    /// all `anew`, as is also done where the server cannot print what it has not computed.
    ///
    /// Which of the two happened is told with the reply.
    async fn score(
        &self,
        round: &Round<'_>,
        end: usize,
        given_ids: &[Vec<TokenId>],
        anew: bool,
    ) -> Result<(Reply, bool), UpstreamError> {
        let neutral = SamplingFields::default();
        let mut call = Call {
            sampling: Cow::Borrowed(round.terms.resolved.as_ref().unwrap_or(&neutral)),
            // This route counts the sampled token among those asked for.
            logprobs: (round.terms.companions() + 1).min(self.max_logprobs),
            prompt_logprobs: Some(PromptScores::last(end - round.start, round.row_length)),
            given_ids,
            skip_cache: Some(anew),
            ..Call::new(&round.terms.origin, round.prompt(end))
        };
        match self.upstream.generate(&call).await {
            Err(error) if error.is_unprintable_row() && !anew => {
                call.skip_cache = Some(true);
                Ok((self.upstream.generate(&call).await?, true))
            }
            reply => Ok((reply?, anew)),
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

    /// What a reply on the first `length` tokens says at `index`, where all of the given ids have to be told, too.
    fn observe(
        &self,
        round: &Round<'_>,
        reply: &Reply,
        given_ids: &[Vec<TokenId>],
        length: usize,
        index: usize,
    ) -> Option<Observation> {
        let place = index - round.start;
        let draft = round.proposal.drafts.get(place)?.token;
        let listed = match given_ids.get(place) {
            Some(ids) => Some((ids.as_slice(), reply.given_ids.as_ref()?.row(place)?)),
            None => None,
        };
        let rows = reply.choices.first()?.prompt.as_ref()?.rows()?;
        let rows = rows::Aligned { rows, cached_tokens: reply.cached_tokens, runner: self.runner };
        let row = rows::computed_row(rows, length, index)?;
        rows::observation(row, round.row_length, draft, listed)
    }

    /// The same of every draft.
    fn observe_all(&self, round: &Round<'_>, reply: &Reply, given_ids: &[Vec<TokenId>]) -> Vec<Option<Observation>> {
        let length = round.tokens.len();
        (round.start..length).map(|index| self.observe(round, reply, given_ids, length, index)).collect()
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
            let (reply, anew) = self.score(round, index + 1, &[], false).await?;
            if let Some(observation) = self.observe(round, &reply, &[], index + 1, index) {
                let version = reply.choices.into_iter().next().and_then(|choice| choice.version);
                return Ok(Recovered { observation, recomputed: anew, version });
            }
            recomputed = anew;
        }
        let (sampled, version) = self.sampler.sample(round.terms, round.prompt(index)).await?;
        Ok(Recovered { observation: Observation::Sampled(sampled), recomputed, version })
    }
}

fn protocol(reason: &str) -> UpstreamError {
    UpstreamError::Protocol { path: "/inference/v1/generate", reason: reason.to_owned() }
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
            let given_ids = self.given_ids(start, round.proposal);
            let (mut reply, anew) = self.score(&round, tokens.len(), &given_ids, false).await?;
            let mut recomputed = usize::from(anew);
            let mut observations = self.observe_all(&round, &reply, &given_ids);
            let lost_rows = observations.iter().filter(|observation| observation.is_none()).count();
            // What is done about lost rows is the same for all drafts at a place: it depends on where the proposal begins, how
            // long it is and what its distributions list.
            let is_long = round.proposal.drafts.len() > MOST_ONE_BY_ONE && !round.proposal.is_certain();
            if !given_ids.is_empty() && lost_rows > 0 {
                (reply, _) = self.score(&round, tokens.len(), &given_ids, true).await?;
                recomputed += 1;
                observations = self.observe_all(&round, &reply, &given_ids);
                if observations.contains(&None) {
                    return Err(protocol("given ids without a score"));
                }
            } else if is_long && observations[1..].contains(&None) {
                // The first may be lost by the context alone, and is then judged by the server's sample.
                let first_is_lost = observations[0].is_none();
                (reply, _) = self.score(&round, tokens.len(), &given_ids, true).await?;
                recomputed += 1;
                observations = self.observe_all(&round, &reply, &given_ids);
                observations[0] = observations[0].take().filter(|_| !first_is_lost);
            }
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
            for (index, observation) in lost.into_iter().zip(recovered) {
                observations[index - start] = Some(observation);
            }
            let Reply { choices, cached_tokens, fingerprint, model, .. } = reply;
            let choice = choices.into_iter().next().ok_or_else(|| protocol("no token"))?;
            // Where the route that sampled does not tell, nobody can.
            if versions.into_iter().flatten().any(|version| choice.version.as_ref() != Some(&version)) {
                return Err(mixed_versions());
            }
            let sampled = choice.tokens.into_iter().next().ok_or_else(|| protocol("no token"))?;
            let bonus = self.bonus(&round, sampled).await?;
            let observations = observations.into_iter().flatten().collect();
            let version = choice.version;
            let told = Evidence { version, cached_tokens, fingerprint, model, ..Evidence::new(observations, bonus) };
            Ok(Evidence { lost_rows, recomputed, given_ids: !given_ids.is_empty(), ..told })
        })
    }
}
