//! A request body in pieces, some of them shared with other requests.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;

/// A body that is being put together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    /// A JSON object with these fields, which are at least one, and to which others can be added until it is finished
    /// with its closing bracket.
    pub(super) fn object(fields: &impl Serialize) -> serde_json::Result<Self> {
        let mut open = serde_json::to_vec(fields)?;
        open.pop();
        Ok(Self { done: Vec::new(), open })
    }

    /// What is written for this request alone.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.open
    }

    /// Adds what is shared.
    pub(super) fn share(&mut self, piece: &Bytes) {
        self.close();
        self.done.push(piece.clone());
    }

    pub(super) fn finish(mut self) -> Pieced {
        self.close();
        let left = self.done.iter().map(|piece| piece.len() as u64).sum();
        Pieced { pieces: self.done.into(), next: 0, left }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.done.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }
}

/// A whole body, whose length is known, so that it is sent with a `Content-Length`. Cheap to clone: another try sends the
/// same pieces.
#[derive(Debug, Clone)]
pub(super) struct Pieced {
    pieces: Arc<[Bytes]>,
    next: usize,
    left: u64,
}

impl From<Bytes> for Pieced {
    fn from(whole: Bytes) -> Self {
        Self { left: whole.len() as u64, pieces: Arc::new([whole]), next: 0 }
    }
}

impl Body for Pieced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.pieces.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
impl Pieced {
    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    pub(super) fn length(&self) -> usize {
        usize::try_from(self.left).unwrap()
    }

    pub(super) fn concat(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn every_try_sends_all_pieces_and_says_how_long_they_are() {
        let mut pieces = Pieces::object(&serde_json::json!({"n": 1})).unwrap();
        pieces.text().extend_from_slice(b",\"ids\":[");
        pieces.share(&Bytes::from_static(b"1,2"));
        pieces.text().extend_from_slice(b"]}");
        let body = pieces.finish();
        for _ in 0..2 {
            let mut sent = body.clone();
            assert_eq!(sent.size_hint().exact(), Some(19));
            let first = sent.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(sent.size_hint().exact(), Some(19 - first.len() as u64));
            let rest = sent.collect().await.unwrap().to_bytes();
            assert_eq!([first, rest].concat(), br#"{"n":1,"ids":[1,2]}"#);
        }
    }
}
