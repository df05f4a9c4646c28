//! The replies of `/inference/v1/generate`, at once and in chunks.

use super::batch::Batch;
use super::chat_logprobs;
use super::config::Version;
use super::engine::Engine;
use super::error::ApiError;
use super::generate::GenerateJob;
use super::logprobs::{Row, floor};
use super::ordered::{Json, NULL, obj};
use super::reply::{Closed, Events};
use super::sequence::{Finish, Sequence};
use super::wire::{self, Spent};

/// How much of a sequence its client has.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    tokens: usize,
    text: usize,
}

impl GenerateJob {
    /// The reply to a request that does not stream.
    ///
    /// # Errors
    /// Where its rows cannot be written.
    pub fn body(&self, engine: &Engine, sequences: &[Sequence]) -> Result<Json, ApiError> {
        let rows = sequences.last().and_then(|last| last.prompt_rows.as_deref());
        rows.map(|rows| wire::finite(&self.config, rows)).transpose()?;
        let prompt = &self.fields.token_ids;
        let named = self.params.detokenize;
        let rows = rows.map(|rows| wire::prompt_logprobs(engine, prompt, rows, named));
        let prompt_ids = self.returns_prompt().then_some(&prompt[..]);
        let numbered = sequences.iter().enumerate();
        let choices: Vec<Json> =
            numbered.map(|(index, done)| self.choice(engine, index, done, &mut Sent::default())).collect();
        let id = self.id.as_str();
        if self.config.is_rust_frontend() {
            return Ok(obj! {"request_id": id, "choices": choices, "prompt_logprobs": rows,
            "prompt_token_ids": prompt_ids, "mm_placeholders": NULL, "kv_transfer_params": NULL,
            "ec_transfer_params": NULL});
        }
        Ok(obj! {
            "request_id": id,
            "model": self.model.as_str(),
            "created": wire::now(),
            "usage": self.spent(sequences).usage(&self.config, true),
            "prompt_logprobs": rows,
            "prompt_token_id_logprobs": sequences.last().and_then(|last| last.given_ids.as_deref()),
            "prompt_token_ids": prompt_ids,
            "mm_placeholders": NULL,
            "metrics": NULL,
            "kv_transfer_params": NULL,
            "ec_transfer_params": NULL,
            "output_mode": self.mode(),
            "choices": choices,
        })
    }

    /// Streams the reply.
    ///
    /// # Errors
    /// Where nobody reads it.
    pub async fn stream(&self, engine: &Engine, mut batch: Batch, events: &mut Events) -> Result<(), Closed> {
        let (include_usage, continuous) = wire::wants_usage(self.fields.stream_options.as_ref(), false);
        let interval = self.interval.max(self.config.stream_interval);
        let mut sent = vec![Sent::default(); batch.sequences.len()];
        let mut prompt_ids = self.returns_prompt().then(|| self.fields.token_ids.clone());
        while batch.open() {
            for index in batch.step().await {
                let sequence = &batch.sequences[index];
                let waiting = sequence.output.len() - sent[index].tokens;
                if sequence.finish.is_none() && sent[index].tokens > 0 && waiting < interval {
                    continue;
                }
                let usage = continuous.then(|| {
                    let mut usage = wire::usage_counts(sequence.prompt.len(), sequence.output.len());
                    usage.set("prompt_tokens_details", NULL);
                    usage.set("completion_tokens_details", NULL);
                    usage
                });
                let choice = self.choice(engine, index, sequence, &mut sent[index]);
                let mut chunk = obj! {"request_id": self.id.as_str(), "usage": usage};
                if let Some(ids) = prompt_ids.take() {
                    chunk.set("prompt_token_ids", &ids[..]);
                }
                chunk.set("output_mode", self.mode());
                chunk.set("choices", vec![choice]);
                events.send(&chunk.to_string()).await?;
            }
        }
        if include_usage {
            let usage = self.spent(&batch.sequences).usage(&self.config, false);
            let none: Vec<Json> = Vec::new();
            let last =
                obj! {"request_id": self.id.as_str(), "usage": usage, "output_mode": self.mode(), "choices": none};
            events.send(&last.to_string()).await?;
        }
        Ok(())
    }

    /// What the client does not have of a choice.
    fn choice(&self, engine: &Engine, index: usize, sequence: &Sequence, sent: &mut Sent) -> Json {
        let from = *sent;
        *sent = Sent { tokens: sequence.output.len(), text: sequence.visible().max(from.text) };
        let finish = sequence.finish.as_ref();
        let reason = finish.map(Finish::reason);
        let ids = &sequence.output[from.tokens..];
        let logprobs = self.logprobs(engine, sequence, from.tokens);
        if self.config.is_rust_frontend() {
            return obj! {"index": index, "finish_reason": reason, "token_ids": ids, "logprobs": logprobs};
        }
        let mut choice = obj! {
            "index": index,
            "finish_reason": reason,
            "stop_reason": finish.map(Finish::stop_reason),
            "token_ids": ids,
            "routed_experts": NULL,
            "sampling_mask": NULL,
        };
        if self.config.version >= Version::WEIGHT_VERSIONS {
            choice.set("weight_versions", finish.map(|_| sequence.weight_versions()));
        }
        if self.text_mode() {
            choice.set("text", &sequence.text[from.text..sent.text]);
        }
        choice.set("logprobs", logprobs);
        choice
    }

    /// Logprobs of the tokens from `from` on.
    fn logprobs(&self, engine: &Engine, sequence: &Sequence, from: usize) -> Option<Json> {
        // The sampled token counts as one of the top here, so fewer alternatives come than were asked for.
        let keep = chat_logprobs::keep(self.params.logprobs?).max(1);
        let (before, ids) = sequence.output.split_at(from);
        let rows = &sequence.rows[from..];
        if self.text_mode() {
            return Some(chat_logprobs::content(&engine.codec, false, before, ids, rows, keep));
        }
        let tokens_only = self.config.version >= Version::CURRENT && !self.config.is_rust_frontend();
        let positions = ids.iter().zip(rows);
        let content: Json = positions
            .map(|(&id, row)| if tokens_only { by_id(id, row, keep) } else { by_name(id, row, keep) })
            .collect();
        Some(obj! {"content": content})
    }

    fn spent(&self, sequences: &[Sequence]) -> Spent {
        Spent {
            prompt: self.fields.token_ids.len(),
            output: sequences.iter().map(|sequence| sequence.output.len()).sum(),
            cached: sequences.last().map_or(0, |last| last.cached),
            ..Spent::default()
        }
    }

    fn returns_prompt(&self) -> bool {
        self.fields.return_token_ids == Some(true)
    }

    fn mode(&self) -> &str {
        self.fields.output_mode.as_deref().unwrap_or("tokens")
    }

    fn text_mode(&self) -> bool {
        self.mode() == "text"
    }
}

/// A position with integer ids.
fn by_id(id: u32, row: &Row, keep: usize) -> Json {
    let entry = |id: u32, logprob, rank: usize| obj! {"token_id": id, "logprob": floor(logprob), "rank": rank};
    let top: Json = row.0.iter().take(keep).map(|top| entry(top.id, top.logprob, top.rank)).collect();
    let mut position = entry(id, row.0[0].logprob, row.0[0].rank);
    position.set("top_logprobs", top);
    position
}

/// A position as chat completions have it, with `token_id:N` for a text: earlier releases and the Rust frontend.
fn by_name(id: u32, row: &Row, keep: usize) -> Json {
    let entry = |id: u32, logprob| obj! {"token": format!("token_id:{id}"), "logprob": floor(logprob), "bytes": NULL};
    let top: Json = row.0.iter().take(keep).map(|top| entry(top.id, top.logprob)).collect();
    let mut position = entry(id, row.0[0].logprob);
    position.set("top_logprobs", top);
    position
}
