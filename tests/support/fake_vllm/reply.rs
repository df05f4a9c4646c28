//! HTTP replies: JSON, plain text and server-sent events that can break off.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::batch::Call;
use super::config::FakeConfig;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::{Hang, Spoil};

/// The body of every reply. An error in it closes the connection.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A reply of `status` with `body`.
pub fn text(status: StatusCode, body: impl Into<Bytes>, content_type: &str) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).header(CONTENT_TYPE, content_type).body(body).unwrap()
}

/// A JSON reply.
pub fn json(status: StatusCode, body: &impl std::fmt::Display) -> Response<Body> {
    text(status, body.to_string(), "application/json")
}

/// The reply to a refused request.
pub fn error(error: &ApiError, config: &FakeConfig) -> Response<Body> {
    json(error.status, &error.body(config))
}

/// A reply that is spoilt, all of it at once.
pub async fn spoilt(response: Response<Body>, how: Spoil) -> io::Result<Response<Body>> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await?.to_bytes();
    let full = |bytes: Bytes| Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync();
    let half = whole.slice(..whole.len() / 2);
    let body = match how {
        Spoil::Half => full(half),
        Spoil::Cut => {
            let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "the fake cuts the reply");
            let pieces = stream::iter([Ok(Frame::data(half))]).chain(stream::once(async {
                // What is sent gets out before the connection closes.
                tokio::task::yield_now().await;
                Err(cut)
            }));
            StreamBody::new(pieces).boxed_unsync()
        }
        Spoil::Json(change) => match serde_json::from_slice(&whole) {
            Ok(mut json) => {
                change(&mut json);
                full(json.to_string().into())
            }
            Err(_) => full(whole),
        },
        Spoil::Text(change) => full(change(&String::from_utf8_lossy(&whole)).into()),
    };
    Ok(Response::from_parts(head, body))
}

/// Where a stream of server-sent events goes wrong.
#[derive(Debug, Clone, Default)]
pub struct StreamFault {
    /// Chunks after which the connection closes.
    pub cut_after: Option<usize>,
    /// Chunks after which the stream waits for the test.
    pub hang_after: Option<(usize, Hang)>,
}

/// The event that ends every stream.
pub const DONE: &str = "[DONE]";

/// The writing end of a stream of events.
pub struct Events {
    sender: mpsc::Sender<io::Result<Bytes>>,
    sent: usize,
    fault: StreamFault,
    engine: Arc<Engine>,
}

/// The stream has ended early: the client has gone, or a fault closed the connection.
pub struct Closed;

impl Events {
    /// Sends one event.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub async fn send(&mut self, data: &str) -> Result<(), Closed> {
        if self.fault.cut_after == Some(self.sent) {
            // An error of the body makes hyper drop the connection without the final chunk, and with it whatever is
            // not flushed: so let it flush first.
            tokio::task::yield_now().await;
            let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "the fake cuts the stream");
            self.sender.send(Err(cut)).await.map_err(|_| Closed)?;
            return Err(Closed);
        }
        if let Some((after, hang)) = &self.fault.hang_after
            && *after == self.sent
        {
            hang.hold().await;
        }
        if let Some(pace) = &self.engine.pace
            && data != DONE
        {
            pace.chunk().await;
        }
        self.sent += 1;
        self.sender.send(Ok(Bytes::from(format!("data: {data}\n\n")))).await.map_err(|_| Closed)
    }
}

/// A reply of server-sent events that `write` produces, lazily: it runs only as far as the client reads, and is dropped
/// with the connection. The request has ended when `write` has returned.
pub fn events<W, F>(call: &mut Call, write: W) -> Response<Body>
where
    W: FnOnce(Events) -> F,
    F: Future<Output = Result<(), Closed>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(1);
    let (fault, engine) = (call.stream_fault.clone(), Arc::clone(&call.engine));
    let writer = Box::pin(write(Events { sender, sent: 0, fault, engine }));
    let mut writer = Some((writer, call.running.take()));
    let frames = stream::poll_fn(move |cx| {
        if let Some((future, running)) = &mut writer
            && future.as_mut().poll(cx).is_ready()
        {
            if let Some(running) = running.take() {
                running.finish();
            }
            writer = None;
        }
        receiver.poll_recv(cx).map(|received| received.map(|bytes| bytes.map(Frame::data)))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    let headers = Response::builder().header(CONTENT_TYPE, "text/event-stream; charset=utf-8");
    headers.header("cache-control", "no-cache").body(body).unwrap()
}
