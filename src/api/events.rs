//! The reply as server-sent events: a chunk for each delta of each choice, in the order in which they come.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderValue, Response, header};

use super::body::{Body, streamed};
use super::error::{error_json, internal_error_event, rollout_error_event};
use super::refusal::Refusal;
use super::reply::{Dialect, Progress};
use super::speculated::{Guard, Vanished, deltas};
use super::stopping::Stopping;
use crate::rollout::{Delta, Deltas, RolloutError};
use crate::telemetry::{Outcome, Place};
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
    stopping: Stopping,
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
    let (stopping, panics) = (guard.stopping(), guard.panics().clone());
    let events = Events { dialect, prefill, progress, ready, deltas, guard, stopping, over: false };
    let body = stream::unfold(events, move |mut events| {
        let panics = panics.clone();
        async move {
            let next = panics.catch(Place::Stream, events.next()).await;
            next.unwrap_or_else(|_| events.fall()).map(|event| (event, events))
        }
    });
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
            let next = tokio::select! {
                biased;
                next = self.deltas.next() => next,
                () = self.stopping.reached() => {
                    self.stop();
                    continue;
                }
            };
            match next {
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
        self.close(Some(internal_error_event(&Vanished.to_string())));
    }

    /// The last events of a stream whose next one could not be made for a mistake in this program.
    fn fall(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        self.guard.set(Outcome::Failed);
        self.deltas = stream::empty().boxed();
        self.ready.clear();
        self.close(Some(internal_error_event("the reply could not be put into words")));
        self.ready.pop_front()
    }

    /// The last event of a stream that would not be over when the sidecar is.
    fn stop(&mut self) {
        self.guard.set(Outcome::Refused(Refusal::Stopping.name()));
        self.deltas = stream::empty().boxed();
        let (status, kind) = Refusal::Stopping.kind();
        self.close(Some(error_json(status, kind, &Refusal::Stopping.message())));
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::api::limits::Room;
    use crate::api::reply::Output;
    use crate::api::stopping::Stop;
    use crate::telemetry::{Metrics, Timer};
    use crate::text::TextError;

    /// Words the first event, and panics over the second.
    struct Falling;

    impl Dialect for Falling {
        fn whole(&self, _: &[Output]) -> Result<Bytes, TextError> {
            unreachable!("a stream")
        }

        fn chunk(&self, _: &Prefill, _: usize, seen: &mut Progress, _: &Delta) -> Result<Option<Bytes>, TextError> {
            assert_eq!(std::mem::replace(&mut seen.offset, 1), 0, "a planted bug");
            Ok(Some(Bytes::from_static(b"{}")))
        }

        fn closing(&self, _: &Prefill, _: &[Progress]) -> Option<Bytes> {
            None
        }
    }

    /// A stream of a rollout that is told to stop, or not, after its first delta; and the metrics that saw it.
    async fn text_of(
        dialect: impl Dialect,
        then: impl FnOnce(&Stop, &mpsc::Sender<Result<Delta, RolloutError>>),
    ) -> (String, String) {
        let (metrics, stop) = (Metrics::register().unwrap(), Stop::new());
        let taken = Room::new(1).take(1).unwrap();
        let guard = Guard::new(metrics.clone(), Timer::start(), "test".into(), stop.listen(), taken);
        let (events, deltas) = mpsc::channel(4);
        then(&stop, &events);
        let body = response(Box::new(dialect), vec![Delta::default()], vec![deltas], guard).into_body();
        let text = body.collect().await.unwrap().to_bytes();
        drop(events);
        (String::from_utf8(text.to_vec()).unwrap(), metrics.encode())
    }

    #[tokio::test]
    async fn a_stream_whose_wording_panics_ends_in_an_error_event() {
        let (text, metrics) = text_of(Falling, |_, events| events.try_send(Ok(Delta::default())).unwrap()).await;
        let events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!((events.len(), events[0], events[2]), (3, "data: {}", "data: [DONE]"), "{text}");
        assert!(events[1].contains("\"InternalServerError\"") && events[1].contains("\"code\":500"), "{text}");
        assert!(metrics.contains("sidedraft_panics_total{place=\"stream\"} 1\n"), "{metrics}");
        assert!(metrics.contains("sidedraft_requests_total{outcome=\"failed\",reason=\"\"} 1\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_stream_that_is_not_over_when_the_sidecar_is_says_so() {
        let (text, metrics) = text_of(Falling, |stop, _| stop.now()).await;
        assert!(text.starts_with("data: {}\n\ndata: {\"error\":") && text.ends_with("\n\ndata: [DONE]\n\n"), "{text}");
        assert!(text.contains("\"code\":503"), "{text}");
        assert!(metrics.contains("{outcome=\"refused\",reason=\"stopping\"} 1\n"), "{metrics}");
    }
}
