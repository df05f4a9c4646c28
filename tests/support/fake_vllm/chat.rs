//! `POST /v1/chat/completions`: what it accepts, and its sequences.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::{Batch, Call};
use super::chat_template::{self, Conversation};
use super::chat_validate;
use super::config::FakeConfig;
use super::engine::{Adapter, Engine};
use super::error::ApiError;
use super::params::{ParamFields, SamplingParams};
use super::reasoning::Splitter;
use super::reply::{self, Body};
use super::sequence::Sequence;
use super::validate;
use super::wire::{self, StreamOptions};

/// What a request says besides its messages and sampling parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ChatFields {
    pub model: Option<String>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<i64>,
    pub max_completion_tokens: Option<i64>,
    pub echo: bool,
    pub add_generation_prompt: bool,
    pub include_reasoning: bool,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub stream_interval: Option<usize>,
    pub return_token_ids: Option<bool>,
    pub return_tokens_as_token_ids: Option<bool>,
    pub return_prompt_text: Option<bool>,
    pub cache_salt: Option<String>,
    pub request_id: Option<String>,
    pub priority: Option<i64>,
}

impl Default for ChatFields {
    fn default() -> Self {
        Self {
            model: None,
            logprobs: None,
            top_logprobs: Some(0),
            max_completion_tokens: None,
            echo: false,
            add_generation_prompt: true,
            include_reasoning: true,
            stream: None,
            stream_options: None,
            stream_interval: None,
            return_token_ids: None,
            return_tokens_as_token_ids: None,
            return_prompt_text: None,
            cache_salt: None,
            request_id: None,
            priority: None,
        }
    }
}

/// A checked request.
pub struct ChatJob {
    pub config: FakeConfig,
    pub fields: ChatFields,
    pub params: SamplingParams,
    pub id: String,
    /// The name that its reply says.
    pub model: String,
    pub conversation: Conversation,
    pub prompt: Vec<u32>,
    adapter: Option<Adapter>,
}

/// Answers a chat request. A stream takes `call.running` along.
///
/// # Errors
/// What vLLM refuses before it streams.
pub async fn complete(call: &mut Call, body: &Value) -> Result<Response<Body>, ApiError> {
    let job = ChatJob::new(&call.engine, body)?;
    let verified = job.params.verify(&job.config);
    if job.fields.stream == Some(true) {
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

impl ChatJob {
    /// Checks a request.
    ///
    /// # Errors
    /// What vLLM refuses before it asks its engine.
    pub fn new(engine: &Engine, body: &Value) -> Result<Self, ApiError> {
        let config = &engine.config;
        chat_validate::check(config, body)?;
        let fields: ChatFields = validate::parse(body)?;
        let (model, adapter) = validate::model(engine, fields.model.as_deref())?;
        chat_validate::check_tools(body)?;
        let conversation = chat_template::render(body)?;
        let prompt = engine.codec.encode(&conversation.text);

        // Chat's own `logprobs` is a switch, and `top_logprobs` their number.
        let mut sampling = body.clone();
        sampling["logprobs"] =
            fields.top_logprobs.filter(|_| fields.logprobs == Some(true)).map_or(Value::Null, |count| json!(count));
        let mut sampling: ParamFields = validate::parse(&sampling)?;
        if fields.echo && sampling.prompt_logprobs.is_none() {
            sampling.prompt_logprobs = fields.top_logprobs;
        }
        let param = if fields.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
        let asked = fields.max_completion_tokens.or(sampling.max_tokens.take());
        validate::check_asked(config, param, asked)?;
        validate::check_ids(config, &prompt)?;
        let max_tokens = wire::max_tokens(config, asked, prompt.len());
        let params = sampling.with_defaults(&config.defaults).build(max_tokens, |text| engine.codec.encode(text))?;
        let id = format!("chatcmpl-{}", wire::request_id(fields.request_id.as_deref()));
        Ok(Self { config: config.clone(), fields, params, id, model, conversation, prompt, adapter })
    }

    fn start(&self, call: &mut Call) -> Batch {
        let start = |_| {
            let (salt, adapter) = (self.fields.cache_salt.clone(), self.adapter.clone());
            Sequence::start(&call.engine, self.prompt.clone(), self.params.clone(), salt, adapter)
        };
        let sequences = (0..self.params.n).map(start).collect();
        Batch::start(call, vec![self.id.clone()], self.params.n, sequences)
    }

    /// The role of the answer: the last message's, where it is continued.
    #[must_use]
    pub fn role(&self) -> &str {
        if self.fields.add_generation_prompt { "assistant" } else { &self.conversation.last_role }
    }

    /// The last message, where it is echoed.
    #[must_use]
    pub fn echoed(&self) -> &str {
        let echoed = self.fields.echo && self.conversation.last_role == self.role();
        if echoed { &self.conversation.last_content } else { "" }
    }

    /// The splitter of a choice, where the server has a reasoning parser.
    #[must_use]
    pub fn splitter(&self) -> Option<Splitter> {
        self.config.think_ids().map(|ids| Splitter::new(ids, &self.prompt))
    }

    /// Whether logprobs and ids are left out lest they tell the reasoning.
    #[must_use]
    pub fn hides_tokens(&self) -> bool {
        self.config.reasoning_parser && !self.fields.include_reasoning
    }
}
