//! The reply as server-sent events: a chunk for each delta of each choice, in the order in which they come.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderValue, Response, header};
use serde::Serialize;

use super::super::body::{Body, streamed};
use super::super::error::rollout_error_event;
use super::respond::{Context, Logprobs, Stop, finish_reason, stop_reason, to_json};
use super::{Deltas, Guard, deltas};
use crate::rollout::{Delta, RolloutError};
use crate::telemetry::Outcome;
use crate::verify::Prefill;

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<Stop<'a>>,
    prompt_token_ids: Option<&'a [u32]>,
    token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct ChunkUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<ChunkDetails>,
}

#[derive(Serialize)]
struct ChunkDetails {
    cached_tokens: usize,
}

/// How far the stream has brought one choice.
#[derive(Default, Clone)]
struct Progress {
    ids: Vec<u32>,
    offset: usize,
    finished: bool,
}

/// A stream of server-sent events under way.
struct Events {
    context: Context,
    prefill: Prefill,
    progress: Vec<Progress>,
    deltas: BoxStream<'static, (usize, Result<Delta, RolloutError>)>,
    guard: Guard,
    over: bool,
}

/// The reply to a request whose rollouts have each brought their `first` delta.
pub(super) fn response(context: Context, first: Vec<Delta>, rest: Vec<Deltas>, guard: Guard) -> Response<Body> {
    let prefill = first.first().and_then(|delta| delta.prefill.clone()).unwrap_or_default();
    let progress = vec![Progress::default(); first.len()];
    let each = first.into_iter().zip(rest).enumerate().map(|(index, (first, rest))| {
        let first = stream::once(std::future::ready(Ok(first)));
        first.chain(deltas(rest)).map(move |delta| (index, delta)).boxed()
    });
    let deltas = stream::select_all(each).boxed();
    let events = Events { context, prefill, progress, deltas, guard, over: false };
    let body = stream::unfold(events, |mut events| async move { events.next().await.map(|event| (event, events)) });
    let mut response = Response::new(streamed(body));
    let event_stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, event_stream);
    response
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        match self.deltas.next().await {
            Some((index, Ok(delta))) => match self.chunk(index, &delta) {
                Ok(json) => Some(event(&json)),
                Err(error) => Some(self.fail(&error)),
            },
            Some((_, Err(error))) => Some(self.fail(&error)),
            None => {
                self.over = true;
                if self.progress.iter().all(|progress| progress.finished) {
                    self.guard.set(Outcome::Speculated);
                    return Some(self.end());
                }
                self.guard.set(Outcome::Failed);
                let message = "the rollout ended unexpectedly";
                let status = http::StatusCode::INTERNAL_SERVER_ERROR;
                let json = super::super::error::error_json(status, "InternalServerError", message);
                Some(then_done(&event(&json)))
            }
        }
    }

    /// The last event of a stream that cannot go on. The other rollouts end with it.
    fn fail(&mut self, error: &RolloutError) -> Bytes {
        tracing::warn!(%error, "a stream breaks off");
        self.over = true;
        self.guard.set(Outcome::Failed);
        self.deltas = stream::empty().boxed();
        then_done(&event(&rollout_error_event(error)))
    }

    fn chunk(&mut self, index: usize, delta: &Delta) -> Result<Bytes, RolloutError> {
        let context = &self.context;
        let request = &context.request;
        let progress = &mut self.progress[index];
        let logprobs = context.logprobs(&delta.tokens, &progress.ids, progress.offset)?;
        progress.offset = logprobs.as_ref().and_then(Logprobs::end).unwrap_or(progress.offset);
        let prompt = &context.prompts[index / request.n];
        let is_first = progress.ids.is_empty();
        progress.ids.extend(delta.tokens.iter().map(|scored| scored.token));
        progress.finished = delta.finish.is_some();
        let usage = request.continuous_usage.then(|| ChunkUsage {
            prompt_tokens: prompt.len(),
            total_tokens: prompt.len() + progress.ids.len(),
            completion_tokens: progress.ids.len(),
            prompt_tokens_details: None,
        });
        let token_ids = || delta.tokens.iter().map(|scored| scored.token).collect();
        let last_word = delta.finish.is_some() && !request.include_usage;
        Ok(to_json(&Chunk {
            id: &context.id,
            object: "text_completion",
            created: context.created,
            model: context.model(&self.prefill),
            choices: vec![ChunkChoice {
                index,
                text: &delta.text,
                logprobs,
                finish_reason: delta.finish.as_ref().map(finish_reason),
                stop_reason: delta.finish.as_ref().and_then(stop_reason),
                prompt_token_ids: (request.return_token_ids && is_first).then_some(prompt),
                token_ids: request.return_token_ids.then(token_ids),
            }],
            usage,
            system_fingerprint: self.prefill.fingerprint.as_deref().filter(|_| last_word),
        }))
    }

    /// What follows the last chunk: the usage, if asked for, and the end mark.
    fn end(&self) -> Bytes {
        if !self.context.request.include_usage {
            return then_done(&[]);
        }
        let prompt_tokens = self.context.prompt_tokens();
        let completion_tokens = self.progress.iter().map(|progress| progress.ids.len()).sum();
        let details = self.prefill.cached_tokens.map(|cached_tokens| ChunkDetails { cached_tokens });
        let json = to_json(&Chunk {
            id: &self.context.id,
            object: "text_completion",
            created: self.context.created,
            model: self.context.model(&self.prefill),
            choices: Vec::new(),
            usage: Some(ChunkUsage {
                prompt_tokens,
                total_tokens: prompt_tokens + completion_tokens,
                completion_tokens,
                prompt_tokens_details: details,
            }),
            system_fingerprint: self.prefill.fingerprint.as_deref(),
        });
        then_done(&event(&json))
    }
}

fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

fn then_done(events: &[u8]) -> Bytes {
    [events, b"data: [DONE]\n\n"].concat().into()
}
