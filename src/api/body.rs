//! Bodies of requests and replies.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame};

use crate::upstream::streamed::{BodyError, StreamedBody};

/// The body of any request or reply.
pub(super) type Body = StreamedBody;

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    StreamedBody::Whole(Some(bytes.into()))
}

/// A body made of pieces as they come.
pub(super) fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamedBody::Made(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync())
}

/// What came of reading a body up to a limit.
pub(super) enum Read {
    /// All of it.
    Whole(Bytes),
    /// It is longer than the limit; this body brings what was read and then the rest.
    TooLong(Body),
}

/// Reads `body` if it is no longer than `limit` bytes.
///
/// # Errors
/// The body's own.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Read, BodyError> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if buffer.is_empty() {
            // A short body comes in one piece, which needs no copy.
            if body.is_end_stream() && data.len() <= limit {
                return Ok(Read::Whole(data));
            }
            buffer.reserve((data.len() as u64 + body.size_hint().lower()).min(limit as u64) as usize);
        }
        buffer.extend_from_slice(&data);
        if buffer.len() > limit {
            let begun = futures_util::stream::once(std::future::ready(Ok(Frame::data(buffer.freeze()))));
            let rest = http_body_util::BodyStream::new(body);
            return Ok(Read::TooLong(StreamedBody::Made(StreamBody::new(begun.chain(rest)).boxed_unsync())));
        }
    }
    Ok(Read::Whole(buffer.freeze()))
}
