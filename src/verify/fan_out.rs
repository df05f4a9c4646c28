//! Strategy C: the server samples after every prefix of the proposal, in one request.

use super::{Evidence, EvidenceFuture, Round, Sampler, Strategy, Verifier};
use crate::speculation::Observation;
use crate::upstream::UpstreamError;

/// Verification by the server's own samples: exact for any sampling parameter that does not count output tokens.
#[derive(Debug, Clone)]
pub struct FanOut {
    sampler: Sampler,
}

impl FanOut {
    /// Verification through `sampler`.
    #[must_use]
    pub fn new(sampler: Sampler) -> Self {
        Self { sampler }
    }
}

impl Verifier for FanOut {
    fn strategy(&self) -> Strategy {
        Strategy::FanOut
    }

    fn verify<'a>(&'a self, round: Round<'a>) -> EvidenceFuture<'a> {
        Box::pin(async move {
            let prompts = (round.start..=round.tokens.len()).map(|end| round.prompt(end)).collect();
            let (mut samples, version) = self.sampler.sample_each(round.terms, prompts).await?;
            let bonus = samples.pop().ok_or_else(|| UpstreamError::Protocol {
                path: "/v1/completions",
                reason: "no sample came back".to_owned(),
            })?;
            let observations = samples.into_iter().map(Observation::Sampled).collect();
            Ok(Evidence { version, ..Evidence::new(observations, bonus) })
        })
    }
}
