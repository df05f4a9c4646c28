//! `POST /v1/completions`.

use std::sync::Arc;

use http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::activity::Running;
use super::completion_logprobs::Naming;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::Faults;
use super::logprobs::Row;
use super::params::{ParamFields, SamplingParams};
use super::prompt::{Prompt, prompts};
use super::reply::{self, Body, Closed, Events, StreamFault};
use super::sequence::{Finish, Sequence};
use super::validate::{self, check_ids, check_model};
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
}

/// A checked request with its sequences, prompt by prompt.
struct Job {
    engine: Arc<Engine>,
    fields: CompletionFields,
    params: SamplingParams,
    id: String,
    prompts: Vec<Prompt>,
    /// `max_tokens: 0` with `echo`: nothing is generated for the client, though the engine must sample one token.
    prompt_only: bool,
}

/// Answers a completion request. A stream takes `running` along.
///
/// # Errors
/// What vLLM refuses before it streams.
pub async fn complete(
    engine: &Arc<Engine>,
    faults: &Arc<Faults>,
    body: &Value,
    stream_fault: StreamFault,
    running: &mut Option<Running>,
) -> Result<Response<Body>, ApiError> {
    let job = Job::new(engine, body)?;
    let verified = job.params.verify(&engine.config);
    if job.fields.stream == Some(true) {
        let faults = Arc::clone(faults);
        let config = engine.config.clone();
        return Ok(reply::events(stream_fault, running.take(), move |mut events| async move {
            match verified {
                // The engine refuses when the status has been sent, so the error is an event.
                Err(error) => events.send(&error.body(&config).to_string()).await?,
                Ok(()) => job.stream(&faults, &mut events).await?,
            }
            events.send("[DONE]").await
        }));
    }
    verified?;
    let mut sequences = job.start();
    while sequences.iter().any(|sequence| sequence.finish.is_none()) {
        faults.before_token().await;
        sequences.iter_mut().filter(|sequence| sequence.finish.is_none()).for_each(Sequence::step);
    }
    Ok(reply::json(http::StatusCode::OK, &job.body(&sequences)?))
}

impl Job {
    fn new(engine: &Arc<Engine>, body: &Value) -> Result<Self, ApiError> {
        let config = &engine.config;
        if body.get("n") == Some(&Value::Null) {
            return Err(validate::wrong_type("n"));
        }
        let fields: CompletionFields = validate::parse(body)?;
        let sampling: ParamFields = validate::parse(body)?;
        let n = sampling.n;
        validate::completion(config, &fields, &sampling)?;
        check_model(config, fields.model.as_deref())?;
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
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        // The server grants what is left of its context rather than refuse.
        let max_tokens = asked.min((config.max_model_len - longest) as i64);
        let sampling = sampling.with_defaults(&config.defaults);
        let mut params = sampling.build(if prompt_only { 1 } else { max_tokens }, |text| engine.codec.encode(text))?;
        if echo && params.prompt_logprobs.is_none() {
            params.prompt_logprobs = params.logprobs;
            params.skip_reading_prefix_cache |= params.logprobs.is_some();
        }
        let id = format!("cmpl-{}", wire::request_id(fields.request_id.as_deref()));
        Ok(Self { engine: Arc::clone(engine), fields, params, id, prompts, prompt_only })
    }

    fn start(&self) -> Vec<Sequence> {
        let copies = self.prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, self.params.n));
        let start = |prompt: &Prompt| {
            Sequence::start(&self.engine, prompt.ids.clone(), self.params.clone(), self.fields.cache_salt.clone())
        };
        copies.map(start).collect()
    }

    fn body(&self, sequences: &[Sequence]) -> Result<Value, ApiError> {
        let mut choices = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let prompt = &self.prompts[index / self.params.n];
            let rows = self
                .params
                .prompt_logprobs
                .map(|count| self.engine.prompt_rows(&prompt.ids, sequence.cached, count))
                .map(|rows| wire::finite(&self.engine.config, rows))
                .transpose()?;
            choices.push(json!({
                "index": index,
                "text": self.echoed_text(prompt, true) + if self.prompt_only { "" } else { &sequence.text },
                "logprobs": self.logprobs_from(prompt, sequence, &mut Sent::default(), rows.as_deref(), true),
                "finish_reason": sequence.finish.as_ref().map(Finish::reason),
                "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason),
                "token_ids": self.returns_ids().then_some(&sequence.output),
                "prompt_logprobs": rows.map(|rows| wire::prompt_logprobs(&self.engine, &prompt.ids, &rows, true)),
                "prompt_token_ids": self.returns_ids().then_some(&prompt.ids),
                "routed_experts": null,
            }));
        }
        let mut body = self.envelope(choices);
        body["usage"] = self.usage(sequences, true);
        body["system_fingerprint"] = json!(wire::fingerprint(&self.engine.config));
        for absent in ["service_tier", "kv_transfer_params", "ec_transfer_params", "metrics"] {
            body[absent] = Value::Null;
        }
        Ok(body)
    }

    async fn stream(&self, faults: &Faults, events: &mut Events) -> Result<(), Closed> {
        let options = self.fields.stream_options.clone().unwrap_or_default();
        let interval = self.fields.stream_interval.unwrap_or(1).max(self.engine.config.stream_interval);
        let mut sequences = self.start();
        let mut sent = vec![Sent::default(); sequences.len()];
        while sequences.iter().any(|sequence| sequence.finish.is_none()) {
            faults.before_token().await;
            for (index, sequence) in sequences.iter_mut().enumerate().filter(|(_, s)| s.finish.is_none()) {
                sequence.step();
                let waiting = sequence.output.len() - sent[index].tokens;
                if sequence.finish.is_none() && sent[index].tokens > 0 && waiting < interval {
                    continue;
                }
                let mut chunk = self.chunk(index, sequence, &mut sent[index]);
                if options.include_usage && options.continuous_usage_stats == Some(true) {
                    chunk["usage"] = wire::usage_counts(sequence.prompt.len(), sequence.output.len());
                }
                if !options.include_usage && sequence.finish.is_some() {
                    chunk["system_fingerprint"] = json!(wire::fingerprint(&self.engine.config));
                }
                events.send(&chunk.to_string()).await?;
            }
        }
        if options.include_usage {
            let mut last = self.envelope(Vec::new());
            last["usage"] = self.usage(&sequences, false);
            last["system_fingerprint"] = json!(wire::fingerprint(&self.engine.config));
            events.send(&last.to_string()).await?;
        }
        Ok(())
    }

    /// The next chunk of one choice. It says `null` where a non-streaming reply would say something only at the end.
    fn chunk(&self, index: usize, sequence: &Sequence, sent: &mut Sent) -> Value {
        let first = sent.tokens == 0;
        let prompt = &self.prompts[index / self.params.n];
        let echoed = (first && self.fields.echo == Some(true) && self.params.prompt_logprobs.is_some())
            .then(|| self.engine.prompt_rows(&prompt.ids, sequence.cached, self.params.prompt_logprobs.unwrap_or(0)));
        // A stop string can take back text that was never shown, and shows less than before at no time.
        let visible = visible(sequence).max(sent.text);
        let delta = if self.prompt_only { "" } else { &sequence.text[sent.text..visible] };
        let prompt_ids = first && (self.returns_ids() || self.fields.echo == Some(true));
        let chunk = self.envelope(vec![json!({
            "index": index,
            "text": self.echoed_text(prompt, first) + delta,
            "logprobs": self.logprobs_from(prompt, sequence, sent, echoed.as_deref(), first),
            "finish_reason": sequence.finish.as_ref().map(Finish::reason),
            "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason),
            "prompt_token_ids": prompt_ids.then_some(&prompt.ids),
            "token_ids": self.returns_ids().then(|| &sequence.output[sent.tokens..]),
        })]);
        *sent = Sent { tokens: sequence.output.len(), text: visible, offset: sent.offset };
        chunk
    }

    /// The prompt's text, where this `first` part of a reply echoes it as text.
    fn echoed_text(&self, prompt: &Prompt, first: bool) -> String {
        let echoed = first && self.fields.echo == Some(true) && !self.returns_ids();
        if echoed { prompt.text.clone() } else { String::new() }
    }

    /// Logprobs of what the client does not have, after the prompt's where it is echoed and this is the `first` part.
    fn logprobs_from(
        &self,
        prompt: &Prompt,
        sequence: &Sequence,
        sent: &mut Sent,
        prompt_rows: Option<&[Option<Row>]>,
        first: bool,
    ) -> Option<Value> {
        self.params.logprobs?;
        let from = sent.tokens;
        let echoed = first && self.fields.echo == Some(true);
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        if echoed {
            ids.extend(&prompt.ids);
            rows.extend(prompt_rows.unwrap_or_default().iter().cloned());
        }
        if !self.prompt_only {
            ids.extend(&sequence.output[from..]);
            rows.extend(sequence.rows.iter().skip(from).cloned().map(Some));
        }
        let before = if echoed { &[] } else { &sequence.output[..from] };
        let as_ids = self.fields.return_tokens_as_token_ids == Some(true);
        let naming = Naming { codec: &self.engine.codec, as_ids, offset: sent.offset };
        let (logprobs, offset) = naming.logprobs(before, &ids, &rows);
        sent.offset = offset;
        Some(logprobs)
    }

    fn envelope(&self, choices: Vec<Value>) -> Value {
        let model = &self.engine.config.model_name;
        json!({"id": self.id, "object": "text_completion", "created": wire::now(), "model": model, "choices": choices})
    }

    fn usage(&self, sequences: &[Sequence], nulls: bool) -> Value {
        let prompt = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let output = sequences.iter().map(|sequence| sequence.output.len()).sum();
        wire::usage(&self.engine.config, prompt, output, sequences.last().map_or(0, |last| last.cached), nulls)
    }

    fn returns_ids(&self) -> bool {
        self.fields.return_token_ids == Some(true)
    }
}

/// How much of a sequence its client has: tokens, bytes of text, and the offset of the next token's name.
#[derive(Debug, Clone, Default)]
struct Sent {
    tokens: usize,
    text: usize,
    offset: usize,
}

/// Bytes of text that may be shown: what could be the beginning of a stop string is held back.
fn visible(sequence: &Sequence) -> usize {
    let params = &sequence.params;
    if sequence.finish.is_some() || params.include_stop_str_in_output {
        return sequence.text.len();
    }
    let hold = params.stop.iter().map(|stop| stop.chars().count()).max().map_or(0, |longest| longest - 1);
    sequence.text.char_indices().rev().take(hold).last().map_or(sequence.text.len(), |(at, _)| at)
}
