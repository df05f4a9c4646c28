//! The reply as server-sent events: a chunk for each delta of each choice, in the order in which they come.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderValue, Response, header};

use super::body::{Body, streamed};
use super::error::{error_json, rollout_error_event};
use super::reply::{Dialect, Progress};
use super::speculated::{Guard, Vanished, deltas};
use crate::rollout::{Delta, Deltas, RolloutError};
use crate::telemetry::Outcome;
use crate::verify::Prefill;

/// A stream of server-sent events under way.
struct Events {
    dialect: Box<dyn Dialect>,
    prefill: Prefill,
    progress: Vec<Progress>,
    /// Events that are due.
    ready: VecDeque<Bytes>,
    deltas: BoxStream<'static, (usize, Result<Delta, RolloutError>)>,
    guard: Guard,
    over: bool,
}

/// The reply to a request whose rollouts have each brought their `first` delta.
pub(super) fn response(
    dialect: Box<dyn Dialect>,
    first: Vec<Delta>,
    rest: Vec<Deltas>,
    guard: Guard,
) -> Response<Body> {
    let prefill = first.first().and_then(|delta| delta.prefill.clone()).unwrap_or_default();
    let progress = vec![Progress::default(); first.len()];
    let each = first.into_iter().zip(rest).enumerate().map(|(index, (first, rest))| {
        let first = stream::once(std::future::ready(Ok(first)));
        first.chain(deltas(rest)).map(move |delta| (index, delta)).boxed()
    });
    let deltas = stream::select_all(each).boxed();
    let ready = dialect.opening(&prefill).iter().map(|json| event(json)).collect();
    let events = Events { dialect, prefill, progress, ready, deltas, guard, over: false };
    let body = stream::unfold(events, |mut events| async move { events.next().await.map(|event| (event, events)) });
    let mut response = Response::new(streamed(body));
    let event_stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, event_stream);
    response
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match self.deltas.next().await {
                Some((index, Ok(delta))) => match self.chunk(index, &delta) {
                    Ok(Some(json)) => self.ready.push_back(event(&json)),
                    Ok(None) => {}
                    Err(error) => self.fail(&error),
                },
                Some((_, Err(error))) => self.fail(&error),
                None => self.end(),
            }
        }
    }

    fn chunk(&mut self, index: usize, delta: &Delta) -> Result<Option<Bytes>, RolloutError> {
        // A rollout that began as a stream learns the rest at its end.
        if let Some(prefill) = delta.prefill.as_ref().filter(|_| index == 0) {
            self.prefill = prefill.clone();
        }
        let progress = &mut self.progress[index];
        let chunk = self.dialect.chunk(&self.prefill, index, progress, delta)?;
        progress.ids.extend(delta.tokens.iter().map(|scored| scored.token));
        progress.finished = delta.finish.is_some();
        Ok(chunk)
    }

    /// The last event of a stream that cannot go on. The other rollouts end with it.
    fn fail(&mut self, error: &RolloutError) {
        self.guard.fail(error);
        self.deltas = stream::empty().boxed();
        self.close(Some(rollout_error_event(error)));
    }

    /// Every rollout has come to its end, or vanished, which only a panic brings about.
    fn end(&mut self) {
        if self.progress.iter().all(|progress| progress.finished) {
            self.guard.set(Outcome::Speculated);
            let closing = self.dialect.closing(&self.prefill, &self.progress);
            return self.close(closing);
        }
        self.guard.fail(&Vanished);
        let status = http::StatusCode::INTERNAL_SERVER_ERROR;
        self.close(Some(error_json(status, "InternalServerError", &Vanished.to_string())));
    }

    fn close(&mut self, last: Option<Bytes>) {
        self.over = true;
        self.ready.extend(last.map(|json| event(&json)));
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }
}

fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}
