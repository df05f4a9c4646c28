//! `POST /v1/completions`.

mod respond;
mod stream;
mod types;
mod validate;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use tokio::sync::mpsc;

pub(super) use validate::Reason;

use super::body::Body;
use super::error::{json_response, rollout_error};
use crate::rollout::{Delta, Engine, RolloutError};
use crate::telemetry::{Metrics, Outcome, Timer};
use crate::upstream::Origin;
use validate::{Prompt, Validated};

/// What becomes of a request.
pub(super) enum Reply {
    /// It was answered.
    Ready(Response<Body>),
    /// The server must answer it.
    Forward(Reason),
}

/// The deltas of one of a request's rollouts, as they come.
type Deltas = mpsc::Receiver<Result<Delta, RolloutError>>;

/// How many deltas a rollout may be ahead of its client.
const AHEAD: usize = 32;

/// Answers a request by speculation, or says why the server should.
pub(super) async fn respond(
    engine: &Engine,
    metrics: &Metrics,
    head: &http::request::Parts,
    body: &Bytes,
    timer: Timer,
) -> Reply {
    let request = match validate::validate(body, engine.capabilities()) {
        Ok(request) => request,
        Err(reason) => return Reply::Forward(reason),
    };
    let origin = Origin::new(&head.headers, request.model.clone(), request.cache_salt.clone());
    let Some(prompts) = tokenize(engine, &origin, &request).await else { return Reply::Forward(Reason::Refused) };
    let max_model_len = engine.capabilities().max_model_len;
    if prompts.iter().any(|prompt| prompt.is_empty() || prompt.len() >= max_model_len) {
        return Reply::Forward(Reason::Invalid);
    }

    let mut guard = Guard { metrics: metrics.clone(), timer, outcome: Some(Outcome::Cancelled) };
    let mut rollouts = start(engine, &origin, &request, &prompts);
    // The server judges a request by its first call, before anything is said to the client.
    let mut first = Vec::with_capacity(rollouts.len());
    for rollout in &mut rollouts {
        match rollout.recv().await {
            Some(Ok(delta)) => first.push(delta),
            Some(Err(error)) if is_refusal(&error) => {
                guard.outcome = None;
                return Reply::Forward(Reason::Refused);
            }
            Some(Err(error)) => {
                guard.set(Outcome::Failed);
                return Reply::Ready(rollout_error(&error));
            }
            None => {
                guard.set(Outcome::Failed);
                return Reply::Ready(respond::vanished());
            }
        }
    }

    let context = respond::Context::new(engine, head, request, prompts);
    if context.request.stream {
        return Reply::Ready(stream::response(context, first, rollouts, guard));
    }
    let mut outputs = Vec::with_capacity(rollouts.len());
    for (delta, rest) in first.into_iter().zip(rollouts) {
        let mut output = respond::Output::default();
        output.add(delta);
        let mut rest = deltas(rest);
        while let Some(next) = rest.next().await {
            match next {
                Ok(delta) => output.add(delta),
                Err(error) => {
                    guard.set(Outcome::Failed);
                    return Reply::Ready(rollout_error(&error));
                }
            }
        }
        if output.finish.is_none() {
            guard.set(Outcome::Failed);
            return Reply::Ready(respond::vanished());
        }
        outputs.push(output);
    }
    match context.completion(&outputs) {
        Ok(json) => {
            guard.set(Outcome::Speculated);
            Reply::Ready(json_response(StatusCode::OK, json))
        }
        Err(error) => {
            guard.set(Outcome::Failed);
            Reply::Ready(rollout_error(&RolloutError::Text(error)))
        }
    }
}

/// The prompts as ids; text by the server's own tokenizer. `None` where it refuses.
async fn tokenize(engine: &Engine, origin: &Origin, request: &Validated) -> Option<Vec<Vec<u32>>> {
    let each = request.prompts.iter().map(|prompt| async move {
        match prompt {
            Prompt::Ids(ids) => Some(ids.clone()),
            Prompt::Text(text) => engine.upstream().tokenize(origin, text, request.add_special_tokens).await.ok(),
        }
    });
    futures_util::future::join_all(each).await.into_iter().collect()
}

/// Starts every rollout of the request, in the order of the choices.
fn start(engine: &Engine, origin: &Origin, request: &Validated, prompts: &[Vec<u32>]) -> Vec<Deltas> {
    let choices = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, request.n));
    choices
        .map(|prompt| {
            let (sender, receiver) = mpsc::channel(AHEAD);
            let rollout = request.rollout(prompt.clone(), origin.clone(), engine.capabilities());
            let engine = engine.clone();
            tokio::spawn(async move { engine.run(rollout, sender).await });
            receiver
        })
        .collect()
}

/// A rollout's deltas up to its last one.
fn deltas(receiver: Deltas) -> impl futures_util::Stream<Item = Result<Delta, RolloutError>> + Send {
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

/// Counts a request when it is over, also when its client goes away in the middle.
struct Guard {
    metrics: Metrics,
    timer: Timer,
    /// Absent once the counting is left to somebody else.
    outcome: Option<Outcome>,
}

impl Guard {
    fn set(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.requests.finished(outcome, self.timer);
        }
    }
}
