//! From what came over the wire to what can be speculated, or the reason to forward it.
//!
//! Nothing is refused here: what the server would refuse is forwarded, so that it says so in its own words.

use serde_json::Value;

use super::types::{CompletionRequest, PromptField, StopField, StreamOptions};
use crate::rollout::{FinishRules, Rollout};
use crate::speculation::Sampling;
use crate::text::StopStrings;
use crate::upstream::{Capabilities, Origin, SamplingFields};
use crate::verify::Terms;

/// Why a request is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Not the JSON that this route takes.
    Malformed,
    /// A value that the server will find fault with.
    Invalid,
    /// The server found fault with the first call.
    Refused,
    /// A field that is not known here.
    UnknownField(String),
    /// A feature that is not speculated.
    Feature(&'static str),
}

impl Reason {
    /// The name under which it is counted.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::UnknownField(_) => "unknown_field",
            Self::Feature(name) => name,
        }
    }
}

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// A request that will be speculated.
#[derive(Debug, Clone)]
pub(super) struct Validated {
    pub(super) model: Option<String>,
    pub(super) prompts: Vec<Prompt>,
    pub(super) add_special_tokens: bool,
    /// Rollouts for each prompt.
    pub(super) n: usize,
    fields: SamplingFields,
    max_tokens: usize,
    stop: StopStrings,
    stop_token_ids: Vec<u32>,
    include_stop_str_in_output: bool,
    ignore_eos: bool,
    skip_special_tokens: bool,
    /// How many log-probabilities the client wants with each token, if any.
    pub(super) logprobs: Option<usize>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) continuous_usage: bool,
    pub(super) return_token_ids: bool,
    pub(super) tokens_as_ids: bool,
    pub(super) request_id: Option<String>,
    pub(super) cache_salt: Option<String>,
}

/// Decides whether a request can be speculated.
pub(super) fn validate(body: &[u8], capabilities: &Capabilities) -> Result<Validated, Reason> {
    let request: CompletionRequest = serde_json::from_slice(body).map_err(|_| Reason::Malformed)?;
    if let Some(field) = request.unknown.keys().next() {
        return Err(Reason::UnknownField(field.clone()));
    }
    if let Some(feature) = unsupported(&request) {
        return Err(Reason::Feature(feature));
    }
    let prompts = prompts(request.prompt)?;
    let fields = SamplingFields {
        temperature: request.temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        min_p: request.min_p,
        repetition_penalty: request.repetition_penalty,
    };
    let sampling = sampling(&fields)?;
    let greedy = request.temperature == Some(0.0);
    if request.seed.is_some_and(|seed| seed != -1) && !greedy {
        return Err(Reason::Feature("seed"));
    }
    let max_tokens = usize::try_from(request.max_tokens.unwrap_or(16)).map_err(|_| Reason::Invalid)?;
    let logprobs = match request.logprobs {
        None => None,
        Some(-1) => return Err(Reason::Feature("all_logprobs")),
        Some(count) => Some(usize::try_from(count).map_err(|_| Reason::Invalid)?),
    };
    let stop = match request.stop {
        None => Vec::new(),
        Some(StopField::One(string)) => vec![string],
        Some(StopField::Many(strings)) => strings,
    };
    let options = request.stream_options.unwrap_or(StreamOptions {
        include_usage: None,
        continuous_usage_stats: None,
        unknown: serde_json::Map::new(),
    });
    let valid = max_tokens >= 1
        && max_tokens <= capabilities.max_model_len
        && request.n >= 1
        && (request.n == 1 || !sampling.is_greedy())
        && logprobs.is_none_or(|count| count <= capabilities.max_logprobs)
        && stop.iter().all(|string| !string.is_empty())
        && request.cache_salt.as_ref().is_none_or(|salt| (1..=1024).contains(&salt.chars().count()));
    if !valid {
        return Err(Reason::Invalid);
    }
    let include_usage = options.include_usage == Some(true);
    Ok(Validated {
        model: request.model,
        prompts,
        add_special_tokens: request.add_special_tokens,
        n: request.n,
        fields,
        max_tokens,
        stop: StopStrings::new(stop, request.include_stop_str_in_output),
        stop_token_ids: request.stop_token_ids.unwrap_or_default(),
        include_stop_str_in_output: request.include_stop_str_in_output,
        ignore_eos: request.ignore_eos,
        skip_special_tokens: request.skip_special_tokens,
        logprobs,
        stream: request.stream == Some(true),
        include_usage,
        continuous_usage: include_usage && options.continuous_usage_stats == Some(true),
        return_token_ids: request.return_token_ids == Some(true),
        tokens_as_ids: request.return_tokens_as_token_ids.unwrap_or(capabilities.tokens_as_ids),
        request_id: request.request_id,
        cache_salt: request.cache_salt,
    })
}

/// The first thing about a request that is not speculated.
fn unsupported(request: &CompletionRequest) -> Option<&'static str> {
    let off_is = |value: Option<f64>, neutral: f64| value.is_none_or(|value| value == neutral);
    let plain_text = |format: &Value| format.get("type").and_then(Value::as_str) == Some("text");
    let features = [
        (request.echo == Some(true), "echo"),
        (!off_is(request.frequency_penalty, 0.0), "frequency_penalty"),
        (!off_is(request.presence_penalty, 0.0), "presence_penalty"),
        (!off_is(request.repetition_penalty, 1.0), "repetition_penalty"),
        (request.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), "logit_bias"),
        (request.suffix.is_some(), "suffix"),
        (request.use_beam_search, "beam_search"),
        (request.watermarking.is_some(), "watermarking"),
        (request.min_tokens > 0, "min_tokens"),
        (!request.skip_special_tokens && !request.spaces_between_special_tokens, "spaces_between_special_tokens"),
        (request.truncate_prompt_tokens.is_some(), "truncate_prompt_tokens"),
        (request.allowed_token_ids.is_some(), "allowed_token_ids"),
        (request.prompt_logprobs.is_some(), "prompt_logprobs"),
        (request.logprob_token_ids.is_some(), "logprob_token_ids"),
        (!request.bad_words.is_empty(), "bad_words"),
        (request.prompt_embeds.is_some(), "prompt_embeds"),
        (request.response_format.as_ref().is_some_and(|format| !plain_text(format)), "response_format"),
        (request.structured_outputs.is_some(), "structured_outputs"),
        (request.priority != 0, "priority"),
        (request.session_id.is_some(), "session_id"),
        (request.routed_experts_prompt_start != 0, "routed_experts"),
        (request.kv_transfer_params.is_some(), "kv_transfer_params"),
        (request.ec_transfer_params.is_some(), "ec_transfer_params"),
        (request.vllm_xargs.is_some(), "vllm_xargs"),
        (request.repetition_detection.is_some(), "repetition_detection"),
        (request.thinking_token_budget.is_some(), "thinking_token_budget"),
        (request.stream_interval.is_some(), "stream_interval"),
        (
            request
                .stream_options
                .as_ref()
                .is_some_and(|options| request.stream != Some(true) || !options.unknown.is_empty()),
            "stream_options",
        ),
    ];
    features.into_iter().find(|(present, _)| *present).map(|(_, name)| name)
}

fn prompts(field: Option<PromptField>) -> Result<Vec<Prompt>, Reason> {
    let prompts = match field {
        None => Vec::new(),
        Some(PromptField::Text(text)) => vec![Prompt::Text(text)],
        Some(PromptField::Ids(ids)) => vec![Prompt::Ids(ids)],
        Some(PromptField::Texts(texts)) => texts.into_iter().map(Prompt::Text).collect(),
        Some(PromptField::IdLists(lists)) => lists.into_iter().map(Prompt::Ids).collect(),
    };
    let empty = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Ids(ids) => ids.is_empty(),
    };
    if prompts.is_empty() || prompts.iter().any(empty) { Err(Reason::Invalid) } else { Ok(prompts) }
}

/// The parameters with every absent one at its neutral value, which shows whether those given are valid.
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

/// `fields` with the server's `defaults` for what is absent.
fn resolved(fields: &SamplingFields, defaults: &SamplingFields) -> SamplingFields {
    SamplingFields {
        temperature: fields.temperature.or(defaults.temperature),
        top_k: fields.top_k.or(defaults.top_k),
        top_p: fields.top_p.or(defaults.top_p),
        min_p: fields.min_p.or(defaults.min_p),
        repetition_penalty: fields.repetition_penalty.or(defaults.repetition_penalty),
    }
}

impl Validated {
    /// One rollout of the request.
    pub(super) fn rollout(&self, prompt: Vec<u32>, origin: Origin, capabilities: &Capabilities) -> Rollout {
        let complete = |fields: &SamplingFields| {
            let all = [fields.temperature, fields.top_p, fields.min_p, fields.repetition_penalty];
            all.iter().all(Option::is_some) && fields.top_k.is_some()
        };
        let defaults = capabilities.defaults.clone().unwrap_or_default();
        // A penalty that comes from the server's defaults changes the target in a way that no row shows.
        let resolved = Some(resolved(&self.fields, &defaults))
            .filter(|fields| complete(fields) && fields.repetition_penalty == Some(1.0));
        let sampling = resolved.as_ref().and_then(|fields| sampling(fields).ok());
        Rollout {
            prompt,
            terms: Terms { origin, fields: self.fields.clone(), resolved, logprobs: self.logprobs.unwrap_or(0) },
            sampling,
            rules: FinishRules {
                max_tokens: self.max_tokens,
                max_model_len: capabilities.max_model_len,
                stop_token_ids: self.stop_token_ids.clone(),
                end_tokens: capabilities.end_tokens.clone().into(),
                ignore_eos: self.ignore_eos,
                stop: self.stop.clone(),
                include_stop_str_in_output: self.include_stop_str_in_output,
            },
            skip_special_tokens: self.skip_special_tokens,
        }
    }
}
