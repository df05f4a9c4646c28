//! What a request asks of its rollouts, whichever endpoint it came by.
//!
//! Nothing is refused here: what the server would refuse is forwarded, so that it says so in its own words.

use std::sync::Arc;

use super::reason::Reason;
use crate::rollout::{Engine, FinishRules, Rollout, TextRules};
use crate::speculation::Sampling;
use crate::text::StopStrings;
use crate::upstream::{Capabilities, Constraints, Origin, Route, SamplingFields};
use crate::verify::{PrefillWishes, Terms};

/// What the rollouts of one request have in common.
#[derive(Debug, Clone)]
pub(super) struct Params {
    /// Rollouts for each prompt.
    pub(super) n: usize,
    /// As the client gave them.
    pub(super) fields: SamplingFields,
    /// What is absent means the server's defaults, or, on the generate route, the neutral values.
    pub(super) takes_defaults: bool,
    pub(super) constraints: Constraints,
    /// Absent for as many as the server allows.
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) include_stop_str_in_output: bool,
    pub(super) text: TextRules,
    pub(super) seed: Option<i64>,
    /// How many log-probabilities the client wants with each token, if any.
    pub(super) logprobs: Option<usize>,
    pub(super) prefill: PrefillWishes,
    pub(super) route: Route,
}

impl Params {
    /// Whether the server would accept them, as far as that can be told here, and say nothing of them that nobody
    /// else can.
    pub(super) fn check(&self, engine: &Engine) -> Result<(), Reason> {
        let capabilities = engine.capabilities();
        if capabilities.tells_more_than_tokens {
            return Err(Reason::Feature("routed_experts"));
        }
        let in_force = self.resolved(capabilities);
        // Every absent parameter at its neutral value shows whether those given are valid.
        let given = sampling(&self.fields)?;
        let greedy = match &in_force {
            Some(fields) => sampling(fields)?.is_greedy(),
            None => given.is_greedy(),
        };
        if self.seed.is_some() && !greedy && !engine.policy().speculate_seeded {
            return Err(Reason::Feature("seed"));
        }
        if self.fields.repetition_penalty.is_some_and(|penalty| !(penalty > 0.0 && penalty.is_finite())) {
            return Err(Reason::Invalid);
        }
        let counts = [self.logprobs, self.prefill.prompt_logprobs];
        let valid = self.n >= 1
            && (self.n == 1 || !greedy)
            && self.max_tokens.is_none_or(|most| most >= 1 && most <= capabilities.max_model_len)
            && self.constraints.min_tokens <= self.max_tokens.unwrap_or(usize::MAX)
            && counts.into_iter().flatten().all(|count| count <= capabilities.max_logprobs)
            && self.constraints.allowed_token_ids.as_ref().is_none_or(|ids| !ids.is_empty())
            && self.stop.iter().all(|string| !string.is_empty());
        if valid { Ok(()) } else { Err(Reason::Invalid) }
    }

    /// Whether a stream of the server's own, which tells no more than sampled tokens and their log-probabilities, can be the
    /// beginning: of one rollout whose length is known, and which ends by ids alone.
    pub(super) fn may_open(&self) -> bool {
        self.n == 1
            && self.max_tokens.is_some()
            && self.seed.is_none()
            && self.stop.is_empty()
            && self.constraints.bad_words.is_empty()
            && self.logprobs.is_none_or(|logprobs| logprobs == 0)
            && self.prefill.prompt_logprobs.is_none()
    }

    /// Forwards words that the server would bar by several tokens: it looks for the beginning of such a word among the
    /// output tokens, and most of those are in the prompt of a verification.
    pub(super) async fn check_bad_words(&self, engine: &Engine, origin: &Origin) -> Result<(), Reason> {
        for word in &self.constraints.bad_words {
            let word = word.trim_start();
            if word.is_empty() {
                return Err(Reason::Invalid);
            }
            let ids = engine.upstream().tokenize(origin, word, false).await.map_err(|_| Reason::Refused)?;
            if ids.len() != 1 {
                return Err(Reason::Feature("bad_words"));
            }
        }
        Ok(())
    }

    /// One rollout after `prompt`, which control requests know by `id`.
    pub(super) fn rollout(&self, id: Arc<str>, prompt: Vec<u32>, origin: Origin, engine: &Engine) -> Rollout {
        let capabilities = engine.capabilities();
        // A model's vocabulary may be padded beyond the tokenizer's, but not to twice its size.
        let vocabulary = 2 * engine.tokenizer().vocabulary_size();
        let resolved = self.resolved(capabilities);
        let sampling = resolved.as_ref().and_then(|fields| sampling(fields).ok());
        let sampling = sampling.map(|sampling| sampling.with_vocabulary(vocabulary));
        let fields = match &resolved {
            Some(resolved) if !self.takes_defaults => resolved.clone(),
            _ => self.fields.clone(),
        };
        let room = capabilities.max_model_len.saturating_sub(prompt.len());
        let limits = capabilities.limits;
        // The generate route grants what a request asks for, whatever the operator's limit.
        let most = limits.most.filter(|_| self.takes_defaults || self.max_tokens.is_none());
        let max_tokens = self.max_tokens.or(limits.default).unwrap_or(room).min(most.unwrap_or(room));
        Rollout {
            id,
            prompt,
            terms: Terms {
                origin,
                fields,
                // A penalty changes the target in a way that no row shows.
                resolved: resolved.filter(|fields| fields.repetition_penalty == Some(1.0)),
                constraints: self.constraints.clone(),
                route: self.route,
                logprobs: self.logprobs.unwrap_or(0),
                rows: engine.remembered_rows(),
            },
            sampling: sampling.filter(|_| self.is_told_by_rows(capabilities)),
            rules: FinishRules {
                max_tokens,
                max_model_len: capabilities.max_model_len,
                min_tokens: self.constraints.min_tokens,
                stop_token_ids: self.constraints.stop_token_ids.clone(),
                end_tokens: capabilities.end_tokens.clone().into(),
                ignore_eos: self.constraints.ignore_eos,
                stop: StopStrings::new(self.stop.clone(), self.include_stop_str_in_output),
                include_stop_str_in_output: self.include_stop_str_in_output,
            },
            text: self.text,
            prefill: self.prefill,
        }
    }

    fn is_told_by_rows(&self, capabilities: &Capabilities) -> bool {
        self.resolved(capabilities).is_some_and(|fields| fields.repetition_penalty == Some(1.0))
    }

    /// The parameters in force, where they are known.
    fn resolved(&self, capabilities: &Capabilities) -> Option<SamplingFields> {
        let defaults = if self.takes_defaults {
            capabilities.defaults.clone().unwrap_or_default()
        } else {
            SamplingFields::neutral()
        };
        let fields = SamplingFields {
            temperature: self.fields.temperature.or(defaults.temperature),
            top_k: self.fields.top_k.or(defaults.top_k),
            top_p: self.fields.top_p.or(defaults.top_p),
            min_p: self.fields.min_p.or(defaults.min_p),
            repetition_penalty: self.fields.repetition_penalty.or(defaults.repetition_penalty),
        };
        let all = [fields.temperature, fields.top_p, fields.min_p, fields.repetition_penalty];
        (all.iter().all(Option::is_some) && fields.top_k.is_some()).then_some(fields)
    }
}

/// Whether two values that a request may leave out are at what means nothing.
pub(super) fn is_off(value: Option<f64>) -> bool {
    value.is_none_or(|value| value == 0.0)
}

fn sampling(fields: &SamplingFields) -> Result<Sampling, Reason> {
    /// The largest temperature that vLLM takes.
    const HOTTEST: f64 = 2.0;
    let temperature = fields.temperature.unwrap_or(1.0);
    let top_k = match fields.top_k {
        None | Some(-1) => None,
        Some(k) => Some(usize::try_from(k).map_err(|_| Reason::Invalid)?),
    };
    if temperature > HOTTEST {
        return Err(Reason::Invalid);
    }
    Sampling::new(temperature, top_k, fields.top_p.unwrap_or(1.0), fields.min_p.unwrap_or(0.0)).ok_or(Reason::Invalid)
}
