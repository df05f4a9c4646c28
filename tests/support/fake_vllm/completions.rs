//! `POST /v1/completions`: what it accepts, and its sequences.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::batch::{Batch, Call};
use super::config::FakeConfig;
use super::engine::{Adapter, Engine};
use super::error::ApiError;
use super::params::{ParamFields, SamplingParams};
use super::prompt::{Prompt, prompts};
use super::reply::{self, Body};
use super::sequence::Sequence;
use super::validate::{self, check_ids};
use super::wire::{self, StreamOptions};

/// What a request says besides its sampling parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CompletionFields {
    pub model: Option<String>,
    pub prompt: Value,
    pub echo: Option<bool>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub stream_interval: Option<usize>,
    pub return_token_ids: Option<bool>,
    pub return_tokens_as_token_ids: Option<bool>,
    pub cache_salt: Option<String>,
    pub request_id: Option<String>,
    pub priority: Option<i64>,
}

/// A checked request.
pub struct Job {
    pub config: FakeConfig,
    pub fields: CompletionFields,
    pub params: SamplingParams,
    pub id: String,
    /// The name that its reply says.
    pub model: String,
    pub prompts: Vec<Prompt>,
    /// How many tokens it asks for. Each prompt is granted what its own length leaves of them.
    asked: i64,
    /// `max_tokens: 0` with `echo`: nothing is generated for the client, though the engine must sample one token.
    pub prompt_only: bool,
    adapter: Option<Adapter>,
}

/// Answers a completion request. A stream takes `call.running` along.
///
/// # Errors
/// What vLLM refuses before it streams.
pub async fn complete(call: &mut Call, body: &Value) -> Result<Response<Body>, ApiError> {
    let job = Job::new(&call.engine, body)?;
    let verified = job.params.verify(&job.config);
    if job.fields.stream == Some(true) {
        // The engine refuses when the status has been sent, so the error is an event.
        let batch = verified.map(|()| job.start(call));
        let engine = call.engine.clone();
        return Ok(reply::events(call, move |mut events| async move {
            match batch {
                Err(error) => events.send(&error.body(&job.config).to_string()).await?,
                Ok(batch) => job.stream(&engine, batch, &mut events).await?,
            }
            events.send(reply::DONE).await
        }));
    }
    verified?;
    let mut batch = job.start(call);
    batch.finish().await;
    Ok(reply::json(StatusCode::OK, &job.body(&call.engine, &batch.sequences)?))
}

impl Job {
    fn new(engine: &Engine, body: &Value) -> Result<Self, ApiError> {
        let config = &engine.config;
        if body.get("n") == Some(&Value::Null) {
            return Err(validate::wrong_type("n"));
        }
        let fields: CompletionFields = validate::parse(body)?;
        let sampling: ParamFields = validate::parse(body)?;
        let n = sampling.n;
        validate::completion(config, &fields, &sampling)?;
        let (model, adapter) = validate::model(engine, fields.model.as_deref())?;
        let prompts = prompts(engine, &fields.prompt)?;
        if config.is_rust_frontend() && (prompts.len() > 1 || n.is_some_and(|n| n > 1)) {
            return Err(ApiError { param: Some("n".into()), ..ApiError::bad_request("Only n=1 is supported.") });
        }
        for prompt in &prompts {
            check_ids(config, &prompt.ids)?;
        }

        let echo = fields.echo == Some(true);
        let asked = sampling.max_tokens.unwrap_or(16);
        let prompt_only = echo && asked == 0;
        // A request that leaves the longest of its prompts too little is refused.
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        // The server grants what is left of its context rather than refuse.
        let max_tokens = if prompt_only { 1 } else { wire::max_tokens(config, Some(asked), longest) };
        let mut params =
            sampling.with_defaults(&config.defaults).build(max_tokens, |text| engine.codec.encode(text))?;
        if echo && params.prompt_logprobs.is_none() {
            params.prompt_logprobs = params.logprobs;
            params.skip_reading_prefix_cache |= params.logprobs.is_some();
        }
        let id = format!("cmpl-{}", wire::request_id(fields.request_id.as_deref()));
        Ok(Self { config: config.clone(), fields, params, id, model, prompts, asked, prompt_only, adapter })
    }

    fn start(&self, call: &mut Call) -> Batch {
        let copies = self.prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, self.params.n));
        let start = |prompt: &Prompt| {
            let (salt, adapter) = (self.fields.cache_salt.clone(), self.adapter.clone());
            let mut params = self.params.clone();
            if !self.prompt_only {
                params.max_tokens = wire::max_tokens(&self.config, Some(self.asked), prompt.ids.len()) as usize;
            }
            Sequence::start(&call.engine, prompt.ids.clone(), params, salt, adapter)
        };
        let sequences = copies.map(start).collect();
        let ids = (0..self.prompts.len()).map(|index| format!("{}-{index}", self.id)).collect();
        Batch::start(call, ids, self.params.n, sequences)
    }

    /// `return_token_ids`.
    #[must_use]
    pub fn returns_ids(&self) -> bool {
        self.fields.return_token_ids == Some(true)
    }
}
