//! The fields that completion and chat completion requests have in common
//! (`vllm/entrypoints/openai/{completion,chat_completion}/protocol.py`).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::reason::Reason;
use super::sampling::{Params, is_off};
use crate::rollout::TextRules;
use crate::upstream::{Capabilities, Constraints, Origin, Route, SamplingFields};
use crate::verify::PrefillWishes;

/// Typed as far as this sidecar understands them. What is only looked at to see that it is absent stays JSON.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) model: Option<String>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    presence_penalty: Option<f64>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    pub(super) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(default)]
    use_beam_search: bool,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    watermarking: Option<Value>,
    #[serde(default = "one", rename = "length_penalty")]
    _length_penalty: f64,
    stop_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    include_stop_str_in_output: bool,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    min_tokens: u64,
    #[serde(default = "yes")]
    skip_special_tokens: bool,
    #[serde(default = "yes")]
    spaces_between_special_tokens: bool,
    truncate_prompt_tokens: Option<Value>,
    #[serde(rename = "truncation_side")]
    _truncation_side: Option<TruncationSide>,
    allowed_token_ids: Option<Vec<u32>>,
    prompt_logprobs: Option<i64>,
    logprob_token_ids: Option<Value>,
    #[serde(default)]
    bad_words: Vec<String>,
    response_format: Option<Value>,
    structured_outputs: Option<Value>,
    #[serde(default)]
    priority: i64,
    pub(super) request_id: Option<String>,
    session_id: Option<String>,
    pub(super) return_tokens_as_token_ids: Option<bool>,
    pub(super) return_token_ids: Option<bool>,
    /// Nothing where replies tell no routed experts, and where they do, everything is forwarded.
    #[serde(default, rename = "routed_experts_prompt_start")]
    _routed_experts_prompt_start: u64,
    /// OpenAI's own fields that vLLM takes no notice of.
    #[serde(rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(rename = "store")]
    _store: Option<Value>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<Value>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<Value>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<Value>,
    /// Of meaning to the render routes alone.
    #[serde(rename = "return_token_offsets")]
    _return_token_offsets: Option<bool>,
    cache_salt: Option<String>,
    kv_transfer_params: Option<Value>,
    ec_transfer_params: Option<Value>,
    vllm_xargs: Option<Value>,
    repetition_detection: Option<Value>,
    thinking_token_budget: Option<Value>,
    stream_interval: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn list(self) -> Vec<String> {
        match self {
            Self::One(string) => vec![string],
            Self::Many(strings) => strings,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TruncationSide {
    Left,
    Right,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What a stream says of usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamUsage {
    /// At its end.
    pub(super) last: bool,
    /// With each chunk.
    pub(super) continuous: bool,
}

impl StreamUsage {
    /// What `options` ask for.
    pub(super) fn new(options: Option<&StreamOptions>, stream: bool) -> Result<Self, Reason> {
        let Some(options) = options else { return Ok(Self::default()) };
        if !stream || !options.unknown.is_empty() {
            return Err(Reason::Feature("stream_options"));
        }
        let last = options.include_usage == Some(true);
        Ok(Self { last, continuous: last && options.continuous_usage_stats == Some(true) })
    }
}

fn one() -> f64 {
    1.0
}

pub(super) fn yes() -> bool {
    true
}

impl Common {
    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// What the stream says of usage, asked or unasked.
    pub(super) fn usage(&self, capabilities: &Capabilities) -> Result<StreamUsage, Reason> {
        let asked = StreamUsage::new(self.stream_options.as_ref(), self.streams())?;
        Ok(if capabilities.usage_unasked { StreamUsage { last: true, continuous: true } } else { asked })
    }

    /// Whether tokens are named by their ids.
    pub(super) fn names_tokens_by_id(&self, capabilities: &Capabilities) -> bool {
        self.return_tokens_as_token_ids.unwrap_or(capabilities.tokens_as_ids)
    }

    /// What every call that is made for the request repeats.
    pub(super) fn origin(&self, headers: &http::HeaderMap) -> Result<Origin, Reason> {
        if self.cache_salt.as_ref().is_some_and(|salt| !(1..=1024).contains(&salt.chars().count())) {
            return Err(Reason::Invalid);
        }
        let mut origin = Origin {
            cache_salt: self.cache_salt.clone(),
            priority: self.priority,
            session_id: self.session_id.clone(),
            ..Origin::new(headers, self.model.clone())
        };
        // The generate route has no field for it. Where there is one, it wins over the header.
        let session = self.session_id.as_deref().filter(|id| !id.is_empty()).map(http::HeaderValue::from_str);
        if let Some(Ok(session)) = session {
            origin.headers.insert("x-session-id", session);
        }
        Ok(origin)
    }

    /// Finds the first thing that is not speculated.
    pub(super) fn check_features(&self) -> Result<(), Reason> {
        // The server has no place for them in a stream.
        if self.streams() && self.prompt_logprobs.is_some_and(|wanted| wanted > 0) {
            return Err(Reason::Invalid);
        }
        let plain_text = |format: &Value| format.get("type").and_then(Value::as_str) == Some("text");
        Reason::first(&[
            (!is_off(self.frequency_penalty), "frequency_penalty"),
            (!is_off(self.presence_penalty), "presence_penalty"),
            (self.use_beam_search, "beam_search"),
            (self.watermarking.is_some(), "watermarking"),
            (self.truncate_prompt_tokens.is_some(), "truncate_prompt_tokens"),
            (self.logprob_token_ids.is_some(), "logprob_token_ids"),
            (self.response_format.as_ref().is_some_and(|format| !plain_text(format)), "response_format"),
            (self.structured_outputs.is_some(), "structured_outputs"),
            (self.kv_transfer_params.is_some(), "kv_transfer_params"),
            (self.ec_transfer_params.is_some(), "ec_transfer_params"),
            (self.vllm_xargs.is_some(), "vllm_xargs"),
            (self.repetition_detection.is_some(), "repetition_detection"),
            (self.thinking_token_budget.is_some(), "thinking_token_budget"),
            (self.stream_interval.is_some(), "stream_interval"),
            (self.prompt_logprobs == Some(-1), "all_logprobs"),
        ])
    }

    /// The same request, which asks for the prompt's log-probabilities too unless it did already.
    pub(super) fn with_prompt_logprobs(self, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Self { prompt_logprobs: self.prompt_logprobs.or(Some(count)), ..self }
    }

    /// Whether the request says anything of the form of the reply.
    pub(super) fn has_response_format(&self) -> bool {
        self.response_format.is_some()
    }

    /// What the request asks of its rollouts, of which there are `n` for each prompt.
    pub(super) fn params(self, n: usize, max_tokens: Option<u64>, logprobs: Option<usize>) -> Result<Params, Reason> {
        let count = |value: u64| usize::try_from(value).map_err(|_| Reason::Invalid);
        let prompt_logprobs =
            self.prompt_logprobs.map(|wanted| usize::try_from(wanted).map_err(|_| Reason::Invalid)).transpose()?;
        Ok(Params {
            n,
            fields: SamplingFields {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
            },
            takes_defaults: true,
            constraints: Constraints {
                logit_bias: logit_bias(self.logit_bias.unwrap_or_default())?,
                allowed_token_ids: self.allowed_token_ids,
                bad_words: self.bad_words,
                min_tokens: count(self.min_tokens)?,
                stop_token_ids: self.stop_token_ids.unwrap_or_default(),
                ignore_eos: self.ignore_eos,
            },
            max_tokens: max_tokens.map(count).transpose()?,
            stop: self.stop.map(OneOrMany::list).unwrap_or_default(),
            include_stop_str_in_output: self.include_stop_str_in_output,
            text: TextRules {
                skip_special_tokens: self.skip_special_tokens,
                spaces_between_special_tokens: self.spaces_between_special_tokens,
            },
            seed: self.seed.filter(|seed| *seed != -1),
            logprobs,
            prefill: PrefillWishes { prompt_logprobs, detokenize: true, is_streamed: self.stream == Some(true) },
            route: Route::Completions,
        })
    }
}

/// The ids and what is added to their logits.
pub(super) fn logit_bias(map: Map<String, Value>) -> Result<Vec<(u32, f64)>, Reason> {
    let entry = |(id, bias): (String, Value)| Some((id.parse().ok()?, bias.as_f64()?));
    map.into_iter().map(|pair| entry(pair).ok_or(Reason::Invalid)).collect()
}
