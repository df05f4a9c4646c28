//! The way to have a proposal verified, and how much to ask for.

use super::Policy;
use super::tail::Tails;
use crate::speculation::Sampling;
use crate::upstream::Capabilities;
use crate::verify::Strategy;

/// How to have a proposal verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The way.
    pub strategy: Strategy,
    /// How many log-probabilities a row should list; of no meaning to fan-out.
    pub row_length: usize,
}

/// The way to verify a proposal after `context_length` tokens.
///
/// `sampling` is absent where the raw distribution does not tell what is sampled, or the server's defaults for what the
/// client left out are unknown: then only the server's own samples can tell. `logprobs` is what the client wants with each token.
/// `tails` says how long a row has to be for the token to be found in it, where any length will do.
#[must_use]
pub fn plan(
    policy: &Policy,
    capabilities: &Capabilities,
    sampling: Option<&Sampling>,
    logprobs: usize,
    context_length: usize,
    tails: &Tails,
) -> Plan {
    let by_sampling = Plan { strategy: Strategy::FanOut, row_length: 0 };
    let limit = policy.row_limit.max(logprobs).min(capabilities.max_logprobs);
    let Some(row_length) = sampling.and_then(|sampling| sampling.row_length(limit)) else { return by_sampling };
    let any_will_do = sampling.is_some_and(Sampling::is_raw);
    let row_length = if any_will_do { tails.shortest_row(row_length) } else { row_length };
    let row_length = row_length.max(logprobs);
    let cheapest = if Strategy::CachedSuffix.is_available(capabilities) {
        Strategy::CachedSuffix
    } else if Strategy::PromptLogprobs.is_available(capabilities) && context_length <= policy.short_context {
        Strategy::PromptLogprobs
    } else {
        Strategy::FanOut
    };
    let strategy = policy.strategy.filter(|strategy| strategy.is_available(capabilities)).unwrap_or(cheapest);
    Plan { strategy, row_length }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::upstream::{ChatSupport, GenerateRoute, GenerateSupport, Runner, TokenLimits};

    fn capabilities(route: GenerateRoute) -> Capabilities {
        Capabilities {
            version: None,
            rust_frontend: false,
            model: "m".to_owned(),
            root: None,
            max_model_len: 1000,
            max_logprobs: 20,
            raw_logprobs: true,
            prompt_logprobs: true,
            generate: GenerateSupport {
                route,
                runner: Runner::V2,
                reports_cached_tokens: false,
                prints_badly: false,
                scores_given_ids: false,
            },
            chat: ChatSupport::default(),
            limits: TokenLimits::default(),
            usage_unasked: false,
            tells_more_than_tokens: false,
            weight_version: "default".to_owned(),
            defaults: None,
            tokens_as_ids: false,
            end_tokens: BTreeMap::new(),
        }
    }

    fn chosen(route: GenerateRoute, sampling: Option<Sampling>, context_length: usize) -> Strategy {
        plan(&Policy::default(), &capabilities(route), sampling.as_ref(), 0, context_length, &Tails::default()).strategy
    }

    #[test]
    fn rows_are_used_where_they_can_tell_the_target() {
        let plain = Sampling::new(1.0, None, 1.0, 0.0);
        assert_eq!(chosen(GenerateRoute::Available, plain, 500), Strategy::CachedSuffix);
        assert_eq!(chosen(GenerateRoute::Missing, plain, 50), Strategy::PromptLogprobs);
        assert_eq!(chosen(GenerateRoute::Missing, plain, 500), Strategy::FanOut);
    }

    #[test]
    fn samples_are_used_where_rows_cannot_tell() {
        let nucleus_at_low_temperature = Sampling::new(0.8, None, 0.9, 0.0);
        assert_eq!(chosen(GenerateRoute::Available, nucleus_at_low_temperature, 50), Strategy::FanOut);
        assert_eq!(chosen(GenerateRoute::Available, None, 50), Strategy::FanOut);
    }

    #[test]
    fn a_row_lists_what_the_client_wants_and_shows_the_border_of_top_k() {
        let available = capabilities(GenerateRoute::Available);
        let length = |sampling: Option<Sampling>, logprobs| {
            plan(&Policy::default(), &available, sampling.as_ref(), logprobs, 50, &Tails::default()).row_length
        };
        assert_eq!(length(Sampling::new(0.0, None, 1.0, 0.0), 0), 2);
        assert_eq!(length(Sampling::new(0.0, None, 1.0, 0.0), 5), 5);
        assert_eq!(length(Sampling::new(0.7, Some(10), 1.0, 0.0), 0), 11);
        assert_eq!(length(Sampling::new(1.0, None, 1.0, 0.0), 0), 20);
    }
}
