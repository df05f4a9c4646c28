//! Sampling parameters: as JSON names them, as the engine holds them, and what vLLM refuses.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::config::{FakeConfig, GenerationDefaults};
use super::error::ApiError;
use super::given_ids::GivenIds;

/// vLLM's `SamplingParams`, those of its fields that the fake acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    pub n: usize,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: i64,
    pub min_p: f64,
    pub presence_penalty: f64,
    pub frequency_penalty: f64,
    pub repetition_penalty: f64,
    pub seed: Option<i64>,
    pub stop: Vec<String>,
    pub stop_token_ids: Vec<u32>,
    pub ignore_eos: bool,
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub logprobs: Option<i64>,
    pub prompt_logprobs: Option<i64>,
    pub given_ids: GivenIds,
    pub logit_bias: BTreeMap<u32, f64>,
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Token sequences that must not occur.
    pub bad_words_ids: Vec<Vec<u32>>,
    pub skip_special_tokens: bool,
    pub include_stop_str_in_output: bool,
    pub detokenize: bool,
    pub skip_reading_prefix_cache: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            n: 1,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            max_tokens: 16,
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            given_ids: GivenIds::default(),
            logit_bias: BTreeMap::new(),
            allowed_token_ids: None,
            bad_words_ids: Vec::new(),
            skip_special_tokens: true,
            include_stop_str_in_output: false,
            detokenize: true,
            skip_reading_prefix_cache: false,
        }
    }
}

/// One string or several, as `stop` may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// The parameters of a request body. A field of `null` is one that was not sent; unknown fields are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ParamFields {
    pub n: Option<i64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub seed: Option<i64>,
    pub stop: Option<OneOrMany>,
    pub stop_token_ids: Option<Vec<i64>>,
    pub ignore_eos: Option<bool>,
    pub max_tokens: Option<i64>,
    pub min_tokens: Option<i64>,
    pub logprobs: Option<i64>,
    pub prompt_logprobs: Option<i64>,
    pub prompt_logprob_token_ids: Option<Vec<Vec<i64>>>,
    pub prompt_logprob_start: Option<i64>,
    pub logit_bias: Option<HashMap<String, f64>>,
    pub allowed_token_ids: Option<Vec<i64>>,
    pub bad_words: Option<Vec<String>>,
    pub skip_special_tokens: Option<bool>,
    pub include_stop_str_in_output: Option<bool>,
    pub detokenize: Option<bool>,
    pub skip_reading_prefix_cache: Option<bool>,
}

impl ParamFields {
    /// Fills what was left out from the generation config, as the OpenAI endpoints do, and clamps `logit_bias` as they do.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &GenerationDefaults) -> Self {
        self.temperature = self.temperature.or(defaults.temperature);
        self.top_p = self.top_p.or(defaults.top_p);
        self.top_k = self.top_k.or(defaults.top_k);
        self.min_p = self.min_p.or(defaults.min_p);
        self.repetition_penalty = self.repetition_penalty.or(defaults.repetition_penalty);
        // Only the generate route takes vLLM's own sampling parameters.
        (self.prompt_logprob_token_ids, self.prompt_logprob_start) = (None, None);
        self.logit_bias.iter_mut().flat_map(HashMap::values_mut).for_each(|bias| *bias = bias.clamp(-100.0, 100.0));
        self
    }

    /// The engine's parameters, checked as `SamplingParams.__post_init__` checks them: before anything is streamed.
    /// `max_tokens` is the endpoint's own reading of that field.
    ///
    /// # Errors
    /// A 400 for the first value out of range.
    pub fn build(self, max_tokens: i64, encode: impl Fn(&str) -> Vec<u32>) -> Result<SamplingParams, ApiError> {
        self.check_ranges(max_tokens)?;
        let base = SamplingParams::default();
        let greedy = self.temperature.is_some_and(|temperature| temperature < 1e-5);
        let stop = match self.stop {
            None => Vec::new(),
            Some(OneOrMany::One(stop)) => vec![stop],
            Some(OneOrMany::Many(stops)) => stops,
        };
        if stop.iter().any(String::is_empty) {
            return Err(ApiError::bad_request("stop cannot contain an empty string."));
        }
        let bad_words = self.bad_words.unwrap_or_default();
        if bad_words.iter().any(String::is_empty) {
            let listed = bad_words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
            let message = format!("bad_words cannot contain an empty string. Got bad_words=[{listed}]");
            return Err(ApiError::bad_request(message));
        }
        let detokenize = self.detokenize.unwrap_or(true);
        if !stop.is_empty() && !detokenize {
            return Err(ApiError::bad_request(
                "stop strings are only supported when detokenize is True. Set detokenize=True to use stop.",
            ));
        }
        let given_ids = GivenIds { rows: self.prompt_logprob_token_ids, start: self.prompt_logprob_start };
        let wants_rows = self.prompt_logprobs.is_some() || given_ids.rows.is_some();
        let mut logit_bias = BTreeMap::new();
        for (key, bias) in self.logit_bias.unwrap_or_default() {
            let id = key.parse().map_err(|_| {
                let message = "logit_bias contains key(s) that cannot be converted to integer token IDs: ";
                ApiError::invalid(&format!("{message}['{key}']"), "logit_bias", format!("['{key}']"))
            })?;
            logit_bias.insert(id, bias);
        }
        Ok(SamplingParams {
            n: self.n.unwrap_or(1) as usize,
            temperature: self.temperature.unwrap_or(1.0),
            top_p: if greedy { 1.0 } else { self.top_p.unwrap_or(1.0) },
            top_k: if greedy { 0 } else { self.top_k.unwrap_or(0) },
            min_p: if greedy { 0.0 } else { self.min_p.unwrap_or(0.0) },
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            seed: self.seed.filter(|&seed| seed != -1),
            stop,
            stop_token_ids: ids(self.stop_token_ids.unwrap_or_default()),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            max_tokens: max_tokens as usize,
            min_tokens: self.min_tokens.unwrap_or(0) as usize,
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            given_ids,
            logit_bias,
            allowed_token_ids: self.allowed_token_ids.map(ids),
            bad_words_ids: bad_words.iter().flat_map(|word| bad_word_ids(word, &encode)).collect(),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(true),
            include_stop_str_in_output: self.include_stop_str_in_output.unwrap_or(false),
            detokenize,
            // Rows of cached positions do not exist, so a request for rows reads no cache unless it insists.
            skip_reading_prefix_cache: self.skip_reading_prefix_cache.unwrap_or(wants_rows),
        })
    }

    fn check_ranges(&self, max_tokens: i64) -> Result<(), ApiError> {
        let temperature = self.temperature.unwrap_or(1.0);
        let top_p = self.top_p.unwrap_or(1.0);
        let top_k = self.top_k.unwrap_or(0);
        let min_p = self.min_p.unwrap_or(0.0);
        let min_tokens = self.min_tokens.unwrap_or(0);
        let n = self.n.unwrap_or(1);
        let penalty = self.repetition_penalty.unwrap_or(1.0);
        if n < 1 {
            return Err(ApiError::invalid(&format!("n must be at least 1, got {n}."), "n", n));
        }
        for (name, value) in [("presence", self.presence_penalty), ("frequency", self.frequency_penalty)] {
            if let Some(value) = value.filter(|value| !(-2.0..=2.0).contains(value)) {
                return Err(ApiError::bad_request(format!("{name}_penalty must be in [-2, 2], got {value}.")));
            }
        }
        if penalty <= 0.0 {
            return Err(ApiError::bad_request(format!("repetition_penalty must be greater than zero, got {penalty}.")));
        }
        if temperature < 0.0 {
            let message = format!("temperature must be non-negative, got {temperature:?}.");
            return Err(ApiError::invalid(&message, "temperature", format!("{temperature:?}")));
        }
        if temperature > 2.0 {
            let message = format!("temperature must be in [0, 2], got {temperature:?}.");
            return Err(ApiError::invalid(&message, "temperature", format!("{temperature:?}")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            let message = format!("top_p must be in (0, 1], got {top_p:?}.");
            return Err(ApiError::invalid(&message, "top_p", format!("{top_p:?}")));
        }
        if top_k < -1 {
            let message = format!("top_k must be 0 (disable), or at least 1, got {top_k}.");
            return Err(ApiError::bad_request(message));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(ApiError::bad_request(format!("min_p must be in [0, 1], got {min_p:?}.")));
        }
        if max_tokens < 1 {
            let message = format!("max_tokens must be at least 1, got {max_tokens}.");
            return Err(ApiError::invalid(&message, "max_tokens", max_tokens));
        }
        if min_tokens < 0 {
            let message = format!("min_tokens must be greater than or equal to 0, got {min_tokens}.");
            return Err(ApiError::bad_request(message));
        }
        if min_tokens > max_tokens {
            let message =
                format!("min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.");
            return Err(ApiError::bad_request(message));
        }
        for (name, count) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            if let Some(count) = count.filter(|&count| count < -1) {
                let message = format!("{name} must be non-negative or -1, got {count}.");
                return Err(ApiError::invalid(&message, name, count));
            }
        }
        if temperature < 1e-5 && n > 1 {
            return Err(ApiError::bad_request(format!("n must be 1 when using greedy sampling, got {n}.")));
        }
        Ok(())
    }
}

impl SamplingParams {
    /// What the engine checks once it has the request (`SamplingParams.verify`): a stream has begun by then.
    ///
    /// # Errors
    /// A 400 for too many logprobs or an id outside the vocabulary.
    pub fn verify(&self, config: &FakeConfig) -> Result<(), ApiError> {
        let vocab = config.language.vocab;
        let limit = if config.max_logprobs == -1 { vocab as i64 } else { config.max_logprobs };
        for (kind, name, count) in
            [("sample", "logprobs", self.logprobs), ("prompt", "prompt_logprobs", self.prompt_logprobs)]
        {
            let count = count.map(|count| if count == -1 { vocab as i64 } else { count });
            if let Some(count) = count.filter(|&count| count > limit) {
                let message =
                    format!("Requested {kind} logprobs of {count}, which is greater than max allowed: {limit}");
                return Err(ApiError::invalid(&message, name, count));
            }
        }
        let outside = |ids: &[u32]| -> Vec<u32> { ids.iter().copied().filter(|&id| id as usize >= vocab).collect() };
        let biased: Vec<u32> = self.logit_bias.keys().copied().collect();
        for (name, ids) in [("logit_bias", &biased), ("stop_token_ids", &self.stop_token_ids)] {
            let outside = outside(ids);
            if !outside.is_empty() {
                let message = format!(
                    "token_id(s) {outside:?} in {name} contain out-of-vocab token ids. Vocabulary size: {vocab}"
                );
                return Err(ApiError::invalid(&message, name, format!("{outside:?}")));
            }
        }
        if let Some(allowed) = &self.allowed_token_ids {
            let outside = outside(allowed);
            if allowed.is_empty() {
                return Err(ApiError::invalid("allowed_token_ids is not None and empty!", "allowed_token_ids", "[]"));
            }
            if !outside.is_empty() {
                let message = "allowed_token_ids contains out-of-vocab token id!";
                return Err(ApiError::invalid(message, "allowed_token_ids", format!("{outside:?}")));
            }
        }
        Ok(())
    }
}

/// Ids of a JSON list; one outside `u32` becomes an id outside every vocabulary, which [`SamplingParams::verify`] refuses.
fn ids(list: Vec<i64>) -> Vec<u32> {
    list.into_iter().map(|id| u32::try_from(id).unwrap_or(u32::MAX)).collect()
}

/// A bad word at the beginning of a text and, where that is another token, after a space.
fn bad_word_ids(word: &str, encode: &impl Fn(&str) -> Vec<u32>) -> Vec<Vec<u32>> {
    let plain = encode(word.trim_start());
    let spaced = encode(&format!(" {}", word.trim_start()));
    let both = spaced.first() != plain.first() && spaced.len() == plain.len();
    if both { vec![plain, spaced] } else { vec![plain] }
}
