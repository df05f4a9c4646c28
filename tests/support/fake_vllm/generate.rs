//! `POST /inference/v1/generate`: tokens in, tokens out. What it accepts, and its sequences.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::batch::{Batch, Call};
use super::config::FakeConfig;
use super::engine::{Adapter, Engine};
use super::error::ApiError;
use super::params::{ParamFields, SamplingParams};
use super::reply::{self, Body};
use super::sequence::Sequence;
use super::validate;
use super::wire::{self, StreamOptions};

/// What a request says besides its sampling parameters.
#[derive(Debug, Clone, Deserialize)]
pub struct GenerateFields {
    pub token_ids: Vec<u32>,
    pub sampling_params: Value,
    #[serde(default)]
    pub request_id: Option<String>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub cache_salt: Option<String>,
    #[serde(default)]
    pub return_token_ids: Option<bool>,
    #[serde(default)]
    pub output_mode: Option<String>,
    #[serde(default)]
    pub priority: Option<i64>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

/// A checked request.
pub struct GenerateJob {
    pub config: FakeConfig,
    pub fields: GenerateFields,
    pub params: SamplingParams,
    pub id: String,
    /// The name that its reply says.
    pub model: String,
    /// `stream_interval` of the request, which the server's may raise.
    pub interval: usize,
    adapter: Option<Adapter>,
}

/// Answers a generate request. A stream takes `call.running` along.
///
/// # Errors
/// What vLLM refuses before it streams.
pub async fn generate(call: &mut Call, body: &Value) -> Result<Response<Body>, ApiError> {
    let job = GenerateJob::new(&call.engine, body)?;
    let (given, length) = (&job.params.given_ids, job.fields.token_ids.len());
    let streamed = job.fields.stream == Some(true);
    if streamed {
        given.verify_stream()?;
    }
    let verified = job.params.verify(&job.config).and_then(|()| given.verify(&job.config, length));
    if streamed {
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

impl GenerateJob {
    fn new(engine: &Engine, body: &Value) -> Result<Self, ApiError> {
        let config = &engine.config;
        let fields: GenerateFields = validate::parse(body)?;
        let sampling: ParamFields = validate::parse(&fields.sampling_params)?;
        if fields.token_ids.is_empty() {
            let message = "1 validation error:\n  {'type': 'too_short', 'loc': 'body.token_ids', 'msg': 'List should \
                           have at least 1 item after validation, not 0'}";
            let error = ApiError { kind: "Bad Request".to_owned(), ..ApiError::bad_request(message) };
            return Err(ApiError { param: Some("body.token_ids".to_owned()), ..error });
        }
        if fields.cache_salt.as_deref() == Some("") {
            let message = "Parameter 'cache_salt' must be a non-empty string if provided.";
            return validate::blame("cache_salt", message);
        }
        let mode = fields.output_mode.as_deref().unwrap_or("tokens");
        if mode != "tokens" && sampling.detokenize == Some(false) {
            return Err(ApiError {
                kind: "Bad Request".to_owned(),
                ..ApiError::bad_request(format!(
                    "1 validation error:\n  output_mode='{mode}' requires sampling_params.detokenize to be true"
                ))
            });
        }
        let (model, adapter) = validate::model(engine, fields.model.as_deref())?;
        validate::priority(config, fields.priority)?;
        validate::check_engine_prompt(config, &fields.token_ids)?;
        if config.is_rust_frontend() && sampling.n.is_some_and(|n| n > 1) {
            return Err(ApiError::bad_request("Only n=1 is supported."));
        }
        // What a request leaves out is vLLM's own default here, never the generation config's; only max_tokens is
        // filled. Nothing is clamped.
        let room = wire::max_tokens(config, None, fields.token_ids.len());
        let max_tokens = sampling.max_tokens.unwrap_or(room);
        let mut params = sampling.build(max_tokens, |text| engine.codec.encode(text))?;
        params.given_ids = params.given_ids.read_by(config);
        let interval = fields.sampling_params["stream_interval"].as_u64().unwrap_or(1) as usize;
        let id = format!("generate-tokens-{}", wire::request_id(fields.request_id.as_deref()));
        Ok(Self { config: config.clone(), fields, params, id, model, interval, adapter })
    }

    fn start(&self, call: &mut Call) -> Batch {
        let start = |_| {
            let (salt, adapter) = (self.fields.cache_salt.clone(), self.adapter.clone());
            Sequence::start(&call.engine, self.fields.token_ids.clone(), self.params.clone(), salt, adapter)
        };
        let sequences = (0..self.params.n).map(start).collect();
        Batch::start(call, vec![self.id.clone()], self.params.n, sequences)
    }
}
