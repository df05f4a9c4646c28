//! The replies of `/v1/chat/completions`, at once and in chunks.

use super::batch::Batch;
use super::chat::ChatJob;
use super::chat_logprobs;
use super::engine::Engine;
use super::error::ApiError;
use super::ordered::{Json, NULL, obj};
use super::reasoning::{Delta, Splitter};
use super::reply::{Closed, Events};
use super::sequence::{Finish, Sequence};
use super::wire::{self, Spent};

/// How much of a choice its client has, and how its text is split.
#[derive(Clone)]
struct Sent {
    tokens: usize,
    text: usize,
    splitter: Option<Splitter>,
}

impl ChatJob {
    /// The reply to a request that does not stream.
    ///
    /// # Errors
    /// Where its rows cannot be written.
    pub fn body(&self, engine: &Engine, sequences: &[Sequence]) -> Result<Json, ApiError> {
        let rows = sequences.last().and_then(|last| last.prompt_rows.as_deref());
        rows.map(|rows| wire::finite(&self.config, rows)).transpose()?;
        let choices: Vec<Json> = sequences.iter().enumerate().map(|(at, done)| self.choice(engine, at, done)).collect();
        let returns_ids = self.fields.return_token_ids == Some(true);
        let returns_text = self.fields.return_prompt_text == Some(true);
        let (id, model) = (self.id.as_str(), self.model.as_str());
        Ok(obj! {
            "id": id,
            "object": "chat.completion",
            "created": wire::now(),
            "model": model,
            "choices": choices,
            "service_tier": NULL,
            "system_fingerprint": wire::fingerprint(&self.config),
            "usage": self.spent(sequences).usage(&self.config, true),
            "prompt_logprobs": rows.map(|rows| wire::prompt_logprobs(engine, &self.prompt, rows, true)),
            "prompt_token_ids": returns_ids.then_some(&self.prompt[..]),
            "prompt_text": returns_text.then_some(self.conversation.text.as_str()),
            "kv_transfer_params": NULL,
            "ec_transfer_params": NULL,
            "metrics": NULL,
        })
    }

    fn choice(&self, engine: &Engine, index: usize, sequence: &Sequence) -> Json {
        let (reasoning, content) = match self.splitter() {
            Some(splitter) => splitter.whole(&sequence.text),
            None => (None, Some(sequence.text.clone())),
        };
        let content = match content {
            content if !self.fields.echo => content,
            content => Some(self.echoed().to_owned() + &content.unwrap_or_default()),
        };
        let message = obj! {
            "role": self.role(),
            "content": content,
            "refusal": NULL,
            "annotations": NULL,
            "audio": NULL,
            "function_call": NULL,
            "reasoning": reasoning.filter(|_| self.fields.include_reasoning),
        };
        obj! {
            "index": index,
            "message": message,
            "logprobs": self.logprobs(engine, sequence, 0),
            "finish_reason": sequence.finish.as_ref().map(Finish::reason),
            "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason),
            "token_ids": self.returns_ids().then_some(&sequence.output[..]),
            "routed_experts": NULL,
        }
    }

    /// Streams the reply.
    ///
    /// # Errors
    /// Where nobody reads it.
    pub async fn stream(&self, engine: &Engine, mut batch: Batch, events: &mut Events) -> Result<(), Closed> {
        let (include_usage, continuous) =
            wire::wants_usage(self.fields.stream_options.as_ref(), self.config.force_include_usage);
        let interval = self.fields.stream_interval.unwrap_or(1).max(self.config.stream_interval);
        let mut sent = vec![Sent { tokens: 0, text: 0, splitter: self.splitter() }; batch.sequences.len()];
        let mut begun = false;
        while batch.open() {
            let stepped = batch.step().await;
            if !std::mem::replace(&mut begun, true) {
                self.begin(continuous, events).await?;
            }
            for index in stepped {
                let sequence = &batch.sequences[index];
                let waiting = sequence.output.len() - sent[index].tokens;
                let early = sequence.finish.is_none() && sent[index].tokens > 0 && waiting < interval;
                // An abort before the first token is never told.
                if sequence.output.is_empty() || early {
                    continue;
                }
                let Some(mut chunk) = self.chunk(engine, index, sequence, &mut sent[index]) else { continue };
                if continuous {
                    chunk.set("usage", self.usage_so_far(&sequence.output));
                }
                if !include_usage && sequence.finish.is_some() {
                    chunk.set("system_fingerprint", wire::fingerprint(&self.config));
                }
                events.send(&chunk.to_string()).await?;
            }
        }
        if include_usage {
            let mut last = self.envelope(Vec::new());
            last.set("usage", self.spent(&batch.sequences).usage(&self.config, false));
            last.set("system_fingerprint", wire::fingerprint(&self.config));
            events.send(&last.to_string()).await?;
        }
        Ok(())
    }

    /// What comes before the first token: each choice's role, and then what it echoes.
    async fn begin(&self, continuous: bool, events: &mut Events) -> Result<(), Closed> {
        let returns_ids = self.fields.return_token_ids == Some(true);
        let returns_text = self.fields.return_prompt_text == Some(true);
        let role = obj! {"role": self.role(), "content": ""};
        let echo = Some(self.echoed()).filter(|echoed| !echoed.is_empty()).map(|echoed| obj! {"content": echoed});
        for (first, delta) in [(true, Some(role)), (false, echo)] {
            for index in 0..self.params.n {
                let Some(delta) = delta.clone() else { continue };
                let mut chunk =
                    self.envelope(vec![obj! {"index": index, "delta": delta, "logprobs": NULL, "finish_reason": NULL}]);
                if continuous {
                    chunk.set("usage", self.usage_so_far(&[]));
                }
                if first {
                    chunk.set("prompt_token_ids", returns_ids.then_some(&self.prompt[..]));
                    chunk.set("prompt_text", returns_text.then_some(self.conversation.text.as_str()));
                }
                events.send(&chunk.to_string()).await?;
            }
        }
        Ok(())
    }

    /// The next chunk of one choice; none where it has nothing to say.
    fn chunk(&self, engine: &Engine, index: usize, sequence: &Sequence, sent: &mut Sent) -> Option<Json> {
        let visible = sequence.visible().max(sent.text);
        let (text, ids) = (&sequence.text[sent.text..visible], &sequence.output[sent.tokens..]);
        let delta = match &mut sent.splitter {
            Some(splitter) => splitter.split(text, ids, self.fields.include_reasoning),
            None => Some(Delta::content(text)),
        };
        let logprobs = self.logprobs(engine, sequence, sent.tokens);
        (sent.tokens, sent.text) = (sequence.output.len(), visible);
        if delta.is_none() && sequence.finish.is_none() && logprobs.is_none() && !self.returns_ids() {
            return None;
        }
        let finish = sequence.finish.as_ref();
        let mut choice = obj! {
            "index": index,
            "delta": delta.unwrap_or_default().json(),
            "logprobs": logprobs,
            "finish_reason": finish.map(Finish::reason),
        };
        if let Some(finish) = finish {
            choice.set("stop_reason", finish.stop_reason());
        }
        choice.set("token_ids", self.returns_ids().then_some(ids));
        Some(self.envelope(vec![choice]))
    }

    /// The logprobs of the tokens from `from` on.
    fn logprobs(&self, engine: &Engine, sequence: &Sequence, from: usize) -> Option<Json> {
        let count = self.params.logprobs.filter(|_| !self.hides_tokens())?;
        let as_ids = self.fields.return_tokens_as_token_ids == Some(true);
        let (before, ids) = sequence.output.split_at(from);
        let rows = &sequence.rows[from..];
        Some(chat_logprobs::content(&engine.codec, as_ids, before, ids, rows, chat_logprobs::keep(count)))
    }

    fn returns_ids(&self) -> bool {
        self.fields.return_token_ids == Some(true) && !self.hides_tokens()
    }

    fn envelope(&self, choices: Vec<Json>) -> Json {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        obj! {"id": id, "object": "chat.completion.chunk", "created": wire::now(), "model": model, "choices": choices}
    }

    fn reasoning_tokens(&self, output: &[u32]) -> Option<usize> {
        self.splitter().map(|splitter| splitter.count(output))
    }

    /// `usage` of a chunk that is not the last.
    fn usage_so_far(&self, output: &[u32]) -> Json {
        let mut usage = wire::usage_counts(self.prompt.len(), output.len());
        let details = self.reasoning_tokens(output).map(|count| obj! {"reasoning_tokens": count});
        usage.set("completion_tokens_details", details);
        usage
    }

    fn spent(&self, sequences: &[Sequence]) -> Spent {
        let last = sequences.last();
        Spent {
            prompt: self.prompt.len(),
            output: sequences.iter().map(|sequence| sequence.output.len()).sum(),
            cached: last.map_or(0, |last| last.cached),
            created: Some(last.map_or(0, Sequence::cache_created)),
            reasoning: sequences.iter().map(|sequence| self.reasoning_tokens(&sequence.output)).sum(),
        }
    }
}
