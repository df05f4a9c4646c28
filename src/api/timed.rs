//! How long forwarded requests take, to the end of their replies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::body::Body;
use crate::telemetry::{Metrics, Outcome, Timer};
use crate::upstream::streamed::BodyError;

/// The body of a reply, which may be timed.
pub struct Timed {
    body: Body,
    _clock: Option<Clock>,
}

/// Records how long a forwarded request took when its reply is over: sent, or its client has gone.
struct Clock {
    metrics: Arc<Metrics>,
    outcome: Outcome,
    timer: Timer,
}

impl Timed {
    /// The body of a forwarded request's reply, which is counted now and timed to its end.
    pub(super) fn forwarded(body: Body, metrics: &Arc<Metrics>, reason: &'static str, timer: Timer) -> Self {
        let outcome = Outcome::Forwarded(reason);
        metrics.requests.decided(outcome);
        Self { body, _clock: Some(Clock { metrics: Arc::clone(metrics), outcome, timer }) }
    }
}

/// The body of a reply that is counted elsewhere.
impl From<Body> for Timed {
    fn from(body: Body) -> Self {
        Self { body, _clock: None }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.metrics.requests.ended(self.outcome, self.timer);
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
