//! The replies of `/v1/completions`, at once and in chunks.

use super::batch::Batch;
use super::completion_logprobs::Naming;
use super::completions::Job;
use super::engine::Engine;
use super::error::ApiError;
use super::logprobs::Row;
use super::ordered::{Json, NULL, obj};
use super::prompt::Prompt;
use super::reply::{Closed, Events};
use super::sequence::{Finish, Sequence};
use super::wire::{self, Spent};

/// How much of a sequence its client has: tokens, bytes of text, the offset of the next token's name, and whether it has
/// the prompt.
#[derive(Debug, Clone, Default)]
struct Sent {
    tokens: usize,
    text: usize,
    offset: usize,
    prompt: bool,
}

impl Job {
    /// The reply to a request that does not stream.
    ///
    /// # Errors
    /// Where its rows cannot be written.
    pub fn body(&self, engine: &Engine, sequences: &[Sequence]) -> Result<Json, ApiError> {
        let mut choices = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            let prompt = &self.prompts[index / self.params.n];
            let rows = sequence.prompt_rows.as_deref();
            rows.map(|rows| wire::finite(&self.config, rows)).transpose()?;
            let text = self.echoed_text(prompt, true) + if self.prompt_only { "" } else { &sequence.text };
            choices.push(obj! {
                "index": index,
                "text": text,
                "logprobs": self.logprobs_from(engine, prompt, sequence, &mut Sent::default()),
                "finish_reason": sequence.finish.as_ref().map(Finish::reason),
                "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason),
                "token_ids": self.returns_ids().then_some(&sequence.output[..]),
                "prompt_logprobs": rows.map(|rows| wire::prompt_logprobs(engine, &prompt.ids, rows, true)),
                "prompt_token_ids": self.returns_ids().then_some(&prompt.ids[..]),
                "routed_experts": NULL,
            });
        }
        let mut body = self.envelope(choices);
        body.set("service_tier", NULL);
        body.set("system_fingerprint", wire::fingerprint(&self.config));
        body.set("usage", self.spent(sequences).usage(&self.config, true));
        ["kv_transfer_params", "ec_transfer_params", "metrics"].into_iter().for_each(|absent| body.set(absent, NULL));
        Ok(body)
    }

    /// Streams the reply.
    ///
    /// # Errors
    /// Where nobody reads it.
    pub async fn stream(&self, engine: &Engine, mut batch: Batch, events: &mut Events) -> Result<(), Closed> {
        let (include_usage, continuous) =
            wire::wants_usage(self.fields.stream_options.as_ref(), self.config.force_include_usage);
        let interval = self.fields.stream_interval.unwrap_or(1).max(self.config.stream_interval);
        let mut sent = vec![Sent::default(); batch.sequences.len()];
        while batch.open() {
            for index in batch.step().await {
                let sequence = &batch.sequences[index];
                let waiting = sequence.output.len() - sent[index].tokens;
                // An abort before the first token is never told.
                let nothing = sequence.output.is_empty();
                let early = sequence.finish.is_none() && sent[index].tokens > 0 && waiting < interval;
                if nothing || early {
                    continue;
                }
                let mut chunk = self.chunk(engine, index, sequence, &mut sent[index]);
                if continuous {
                    chunk.set("usage", wire::usage_counts(sequence.prompt.len(), sequence.output.len()));
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

    /// The next chunk of one choice. It says `null` where a non-streaming reply would say something only at the end.
    fn chunk(&self, engine: &Engine, index: usize, sequence: &Sequence, sent: &mut Sent) -> Json {
        let first = !sent.prompt;
        let prompt = &self.prompts[index / self.params.n];
        // A stop string can take back text that was never shown, and shows less than before at no time.
        let visible = sequence.visible().max(sent.text);
        let delta = if self.prompt_only { "" } else { &sequence.text[sent.text..visible] };
        let prompt_ids = first && (self.returns_ids() || self.fields.echo == Some(true));
        let text = self.echoed_text(prompt, first) + delta;
        let chunk = self.envelope(vec![obj! {
            "index": index,
            "text": text,
            "logprobs": self.logprobs_from(engine, prompt, sequence, sent),
            "finish_reason": sequence.finish.as_ref().map(Finish::reason),
            "stop_reason": sequence.finish.as_ref().map(Finish::stop_reason),
            "prompt_token_ids": prompt_ids.then_some(&prompt.ids[..]),
            "token_ids": self.returns_ids().then(|| &sequence.output[sent.tokens..]),
        }]);
        *sent = Sent { tokens: sequence.output.len(), text: visible, prompt: true, ..*sent };
        chunk
    }

    /// The prompt's text, where this `first` part of a reply echoes it as text.
    fn echoed_text(&self, prompt: &Prompt, first: bool) -> String {
        let echoed = first && self.fields.echo == Some(true) && !self.returns_ids();
        if echoed { prompt.text.clone() } else { String::new() }
    }

    /// Logprobs of what the client does not have, after the prompt's where it is echoed and not sent.
    fn logprobs_from(&self, engine: &Engine, prompt: &Prompt, sequence: &Sequence, sent: &mut Sent) -> Option<Json> {
        self.params.logprobs?;
        let from = sent.tokens;
        let echoed = !sent.prompt && self.fields.echo == Some(true);
        let (mut ids, mut rows): (Vec<u32>, Vec<Option<Row>>) = Default::default();
        if echoed {
            ids.extend(&prompt.ids);
            rows.extend(sequence.prompt_rows.iter().flatten().cloned());
        }
        if !self.prompt_only {
            ids.extend(&sequence.output[from..]);
            rows.extend(sequence.rows.iter().skip(from).cloned().map(Some));
        }
        let before = if echoed { &[] } else { &sequence.output[..from] };
        let as_ids = self.fields.return_tokens_as_token_ids == Some(true);
        let naming = Naming { codec: &engine.codec, as_ids, offset: sent.offset };
        let (logprobs, offset) = naming.logprobs(before, &ids, &rows);
        sent.offset = offset;
        Some(logprobs)
    }

    fn envelope(&self, choices: Vec<Json>) -> Json {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        obj! {"id": id, "object": "text_completion", "created": wire::now(), "model": model, "choices": choices}
    }

    fn spent(&self, sequences: &[Sequence]) -> Spent {
        Spent {
            prompt: self.prompts.iter().map(|prompt| prompt.ids.len()).sum(),
            output: sequences.iter().map(|sequence| sequence.output.len()).sum(),
            cached: sequences.last().map_or(0, |last| last.cached),
            ..Spent::default()
        }
    }
}
