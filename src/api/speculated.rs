//! A request that is answered by speculation: its rollouts are started, the server judges it by their first call, and
//! what they come to is told in the endpoint's own shape.

use std::sync::Arc;

use futures_util::StreamExt;
use http::{Response, StatusCode};

use super::body::Body;
use super::error::{internal_error, json_response, rollout_error};
use super::events;
use super::limits::{NoRoom, Room, Taken};
use super::reason::Reason;
use super::refusal::Refusal;
use super::reply::{Dialect, Output};
use super::stopping::Stopping;
use crate::rollout::{Delta, Deltas, Engine, Opening, Rollout, RolloutError};
use crate::telemetry::{Metrics, Outcome, PanicMetrics, Timer};

/// A request that can be speculated.
pub(super) struct Job {
    /// A rollout for each prompt, in the order of the prompts.
    pub(super) rollouts: Vec<Rollout>,
    /// How many of each.
    pub(super) n: usize,
    /// The beginning of the only rollout, where that had to be before its prompt was known.
    pub(super) opening: Option<Opening>,
    pub(super) stream: bool,
    pub(super) dialect: Box<dyn Dialect>,
}

/// What becomes of a request.
pub(super) enum Reply {
    /// It was answered.
    Ready(Response<Body>),
    /// Too many rollouts are under way.
    NoRoom,
    /// The server must answer it.
    Forward(Reason),
}

/// What all requests share.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) metrics: &'a Metrics,
    pub(super) room: &'a Room,
    pub(super) stopping: &'a Stopping,
}

/// Runs a request's rollouts, or as much of them as comes before the sidecar is stopped.
pub(super) async fn answer(engine: &Engine, common: Common<'_>, job: Job, timer: Timer) -> Reply {
    let mut stopping = common.stopping.clone();
    tokio::select! {
        biased;
        reply = run(engine, common, job, timer) => reply,
        () = stopping.reached() => Reply::Ready(Refusal::Stopping.response()),
    }
}

async fn run(engine: &Engine, common: Common<'_>, job: Job, timer: Timer) -> Reply {
    let Common { metrics, room, stopping } = common;
    let Job { rollouts, n, opening, stream, dialect } = job;
    let max_model_len = engine.capabilities().max_model_len;
    if rollouts.iter().any(|rollout| rollout.prompt.is_empty() || rollout.prompt.len() >= max_model_len) {
        return Reply::Forward(Reason::Invalid);
    }
    let taken = match room.take(rollouts.len().saturating_mul(n)) {
        Ok(taken) => taken,
        Err(NoRoom::Now) => return Reply::NoRoom,
        // It would be told to come back for ever.
        Err(NoRoom::Ever) => return Reply::Forward(Reason::Feature("too_many_rollouts")),
    };
    let request_id = rollouts.first().map_or_else(|| Arc::from(""), |rollout| Arc::clone(&rollout.id));
    let mut guard = Guard::new(metrics.clone(), timer, request_id, stopping.clone(), taken);
    let mut opening = opening;
    let start = |rollout| match opening.take() {
        Some(opening) => vec![engine.start_opened(rollout, opening)],
        None => engine.start(rollout, n),
    };
    let mut running: Vec<Deltas> = rollouts.into_iter().flat_map(start).collect();
    // The server judges a request by its first call, before anything is said to the client.
    let mut first = Vec::with_capacity(running.len());
    for rollout in &mut running {
        match rollout.recv().await {
            Some(Ok(delta)) => first.push(delta),
            Some(Err(error)) if is_refusal(&error) => {
                guard.outcome = None;
                return Reply::Forward(Reason::Refused);
            }
            Some(Err(error)) => {
                guard.fail(&error);
                return Reply::Ready(rollout_error(&error));
            }
            None => {
                guard.fail(&Vanished);
                return Reply::Ready(vanished());
            }
        }
    }
    if stream {
        return Reply::Ready(events::response(dialect, first, running, guard));
    }
    Reply::Ready(whole(&*dialect, first, running, guard).await)
}

/// Waits for every rollout's end.
async fn whole(dialect: &dyn Dialect, first: Vec<Delta>, running: Vec<Deltas>, mut guard: Guard) -> Response<Body> {
    let mut outputs = Vec::with_capacity(running.len());
    for (delta, rest) in first.into_iter().zip(running) {
        let mut output = Output::default();
        output.add(delta);
        let mut rest = deltas(rest);
        while let Some(next) = rest.next().await {
            match next {
                Ok(delta) => output.add(delta),
                Err(error) => {
                    guard.fail(&error);
                    return rollout_error(&error);
                }
            }
        }
        if output.finish.is_none() {
            guard.fail(&Vanished);
            return vanished();
        }
        outputs.push(output);
    }
    match dialect.whole(&outputs) {
        Ok(json) => {
            guard.set(Outcome::Speculated);
            json_response(StatusCode::OK, json)
        }
        Err(error) => {
            guard.fail(&error);
            rollout_error(&RolloutError::Text(error))
        }
    }
}

/// A rollout's deltas up to its last one.
pub(super) fn deltas(receiver: Deltas) -> impl futures_util::Stream<Item = Result<Delta, RolloutError>> + Send + Unpin {
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next, receiver))
    }))
}

/// Whether the server found fault with the request, so that its own words are the right answer.
fn is_refusal(error: &RolloutError) -> bool {
    let RolloutError::Upstream(error) = error else { return false };
    error.status().is_some_and(|status| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS)
}

/// A rollout ended without a word, which only a panic brings about.
#[derive(Debug, thiserror::Error)]
#[error("the rollout ended unexpectedly")]
pub(super) struct Vanished;

fn vanished() -> Response<Body> {
    internal_error(&Vanished.to_string())
}

/// Counts a request when it is over, also when its client goes away in the middle.
pub(super) struct Guard {
    metrics: Metrics,
    timer: Timer,
    /// Absent once the counting is left to somebody else.
    outcome: Option<Outcome>,
    request_id: Arc<str>,
    stopping: Stopping,
    _room: Taken,
}

impl Guard {
    /// A request that was cancelled, unless something else is set.
    pub(super) fn new(metrics: Metrics, timer: Timer, request_id: Arc<str>, stopping: Stopping, room: Taken) -> Self {
        Self { metrics, timer, outcome: Some(Outcome::Cancelled), request_id, stopping, _room: room }
    }

    pub(super) fn set(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Counts it as failed, and says why.
    pub(super) fn fail(&mut self, error: &dyn std::error::Error) {
        tracing::warn!(request_id = &*self.request_id, %error, "a request fails");
        self.set(Outcome::Failed);
    }

    /// Hears of the end of a drain.
    pub(super) fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }

    /// Panics are counted here.
    pub(super) fn panics(&self) -> &PanicMetrics {
        &self.metrics.panics
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Whoever catches a panic counts the request.
        let Some(outcome) = self.outcome.filter(|_| !std::thread::panicking()) else { return };
        let is_dropped_here = outcome == Outcome::Cancelled && self.stopping.is_now();
        let outcome = if is_dropped_here { Outcome::Refused(Refusal::Stopping.name()) } else { outcome };
        self.metrics.requests.finished(outcome, self.timer);
    }
}
