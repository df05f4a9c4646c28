//! The body of a client's request, within limits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::streamed::BodyError;

/// What a client's body may come to.
#[derive(Debug, Clone, Copy)]
pub struct IntakeLimits {
    /// Most bytes.
    pub bytes: u64,
    /// How long the client may let wait for more of it.
    pub patience: Duration,
}

/// Why a client's body does not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// It has more bytes than these.
    #[error("the request's body is longer than {0} bytes")]
    TooLong(u64),
    /// For so long, nothing more of it came.
    #[error("nothing more of the request's body came for {} seconds", .0.as_secs_f64())]
    TooSlow(Duration),
    /// The client broke off.
    #[error("the request's body could not be read: {0}")]
    Broken(String),
}

impl IntakeError {
    /// The one among the causes of `error`, itself included.
    #[must_use]
    pub fn among<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// A body that is watched on its way in.
#[derive(Debug)]
pub struct Intake {
    body: Incoming,
    limits: IntakeLimits,
    read: u64,
    /// Runs while nothing comes.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Intake {
    /// `body` within `limits`.
    #[must_use]
    pub fn new(body: Incoming, limits: IntakeLimits) -> Self {
        Self { body, limits, read: 0, clock: None }
    }
}

impl Body for Intake {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let patience = this.limits.patience;
                let clock = this.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                return clock.as_mut().poll(context).map(|()| Some(Err(IntakeError::TooSlow(patience).into())));
            }
        };
        this.clock = None;
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| IntakeError::Broken(error.to_string()))?;
        this.read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if this.read > this.limits.bytes {
            return Poll::Ready(Some(Err(IntakeError::TooLong(this.limits.bytes).into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
