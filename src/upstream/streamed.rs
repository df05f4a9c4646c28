//! Bodies on their way through, whole or in pieces, without a box around the common kinds.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::intake::Intake;
use super::links::ReplyBody;

/// An error in the middle of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or of a reply.
#[derive(Debug)]
pub enum StreamedBody {
    /// It is there already; nothing once it was taken.
    Whole(Option<Bytes>),
    /// It comes from the client.
    Taken(Intake),
    /// It comes from the server, whose connection is driven elsewhere.
    Received(Incoming),
    /// It comes from the server.
    Replied(ReplyBody),
    /// It is made here.
    Made(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Taken(body) => Pin::new(body).poll_frame(context),
            Self::Received(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Replied(body) => body.poll_frame(context).map_err(Into::into),
            Self::Made(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Taken(body) => body.is_end_stream(),
            Self::Received(body) => body.is_end_stream(),
            Self::Replied(body) => body.is_end_stream(),
            Self::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Taken(body) => body.size_hint(),
            Self::Received(body) => body.size_hint(),
            Self::Replied(body) => body.size_hint(),
            Self::Made(body) => body.size_hint(),
        }
    }
}
