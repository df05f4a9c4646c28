//! The connections that forwarded requests go over.
//!
//! A connection is driven by the task of the request that uses it, not by one of its own: a reply is on its way to the
//! client in the same turn in which it was read, and nothing is handed from task to task.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::ServiceExt;

use super::breaker::Breaker;
use super::error::root_cause;
use super::intake::IntakeError;
use super::streamed::{BodyError, StreamedBody};

/// How long a connection waits for its next request. vLLM closes one that was idle for 5 seconds, and a request that is
/// sent in that moment is lost.
const IDLE: Duration = Duration::from_secs(4);

/// Why no connection is tried.
pub(super) const HELD_BACK: &str = "no connection could be opened lately, so none is tried for a moment";

type Connector = HttpsConnector<HttpConnector>;
type Connection = http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Outgoing>;

/// Opens connections to one server and keeps those that are not in use.
#[derive(Debug)]
pub(super) struct Links {
    server: Uri,
    host: HeaderValue,
    connector: Connector,
    breaker: Arc<Breaker>,
    idle: Mutex<VecDeque<(Instant, Box<Link>)>>,
}

/// Why a request brought no reply.
#[derive(Debug)]
pub(super) enum LinkError {
    /// By the server's fault, or that of the way to it.
    Server(String),
    /// By the client's.
    Client(IntakeError),
}

impl LinkError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        match IntakeError::among(error) {
            Some(fault) => Self::Client(fault.clone()),
            None => Self::Server(root_cause(error)),
        }
    }
}

/// A connection that can take a request. Boxed, because it is large and is handed around with each.
#[derive(Debug)]
struct Link {
    requests: http1::SendRequest<Outgoing>,
    connection: Connection,
    /// Set when the current request is written.
    sent: Arc<AtomicBool>,
}

impl Links {
    /// Connections to the host and port of `server`; none is opened yet.
    pub(super) fn new(server: Uri, connector: Connector, breaker: Arc<Breaker>) -> Option<Self> {
        let usual_port = if server.scheme_str() == Some("https") { 443 } else { 80 };
        let host = match (server.host()?, server.port_u16()) {
            (host, Some(port)) if port != usual_port => format!("{host}:{port}"),
            (host, _) => host.to_owned(),
        };
        let host = HeaderValue::from_maybe_shared(host).ok()?;
        Some(Self { server, host, connector, breaker, idle: Mutex::default() })
    }

    /// Sends `request`, whose URI must be a path below the server's own, and returns the reply once its head is there,
    /// or why there is none.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<StreamedBody>,
    ) -> Result<Response<StreamedBody>, LinkError> {
        let (mut head, body) = request.into_parts();
        head.uri = self.target(head.uri).map_err(LinkError::Server)?;
        head.headers.insert(header::HOST, self.host.clone());
        let mut request = Request::from_parts(head, Outgoing { body, sent: None });
        loop {
            let idle = self.take();
            let kept = idle.is_some();
            let mut link = match idle {
                Some(link) => link,
                None => self.open().await.map_err(LinkError::Server)?,
            };
            link.sent.store(false, Ordering::Relaxed);
            request.body_mut().sent = Some(Arc::clone(&link.sent));
            match link.exchange(request).await {
                Ok(response) => return Ok(self.reply(link, response)),
                // The server had closed the connection before it saw the request: that happens to connections that waited.
                Err((_, Some(unsent))) if kept => request = unsent,
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// What stands in the request line for a client's `uri`.
    fn target(&self, uri: Uri) -> Result<Uri, String> {
        let prefix = self.server.path().trim_end_matches('/');
        if prefix.is_empty() && uri.authority().is_none() {
            return Ok(uri);
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        PathAndQuery::try_from(format!("{prefix}{path}")).map(Uri::from).map_err(|error| error.to_string())
    }

    fn reply(self: &Arc<Self>, link: Box<Link>, response: Response<Incoming>) -> Response<StreamedBody> {
        if response.body().is_end_stream() {
            self.keep(link);
            return response.map(StreamedBody::Received);
        }
        if link.sent.load(Ordering::Relaxed) {
            let links = Arc::clone(self);
            return response.map(|body| StreamedBody::Replied(ReplyBody { body, link: Some((link, links)) }));
        }
        // The server answers before it has heard all. What is left is written even while the client does not read.
        tokio::spawn(link.connection);
        response.map(StreamedBody::Received)
    }

    async fn open(&self) -> Result<Box<Link>, String> {
        if !self.breaker.admits(Instant::now()) {
            return Err(HELD_BACK.to_owned());
        }
        let stream = match self.connector.clone().oneshot(self.server.clone()).await {
            Ok(stream) => stream,
            Err(error) => {
                self.breaker.failed(Instant::now());
                return Err(root_cause(&*error));
            }
        };
        self.breaker.succeeded();
        let handshake = http1::Builder::new().writev(false).handshake(stream).await;
        let (requests, connection) = handshake.map_err(|error| root_cause(&error))?;
        Ok(Box::new(Link { requests, connection, sent: Arc::default() }))
    }

    /// The connection that was used last, if it is still open.
    fn take(&self) -> Option<Box<Link>> {
        loop {
            let (since, mut link) = self.idle().pop_back()?;
            if since.elapsed() < IDLE && link.is_open() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose reply is over.
    fn keep(&self, mut link: Box<Link>) {
        if link.requests.is_ready() || (link.is_open() && link.requests.is_ready()) {
            self.idle().push_back((Instant::now(), link));
        }
    }

    /// Closes connections that have waited too long or that the server has closed.
    pub(super) fn sweep(&self) {
        self.idle().retain_mut(|(since, link)| since.elapsed() < IDLE && link.is_open());
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Box<Link>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Whether the server has kept its side open. Nobody is woken when that changes.
    fn is_open(&mut self) -> bool {
        Pin::new(&mut self.connection).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// The reply to a request, or why there is none, and the request if nothing of it was written.
    async fn exchange(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, (LinkError, Option<Request<Outgoing>>)> {
        let mut reply = pin!(self.requests.try_send_request(request));
        let mut closed = None;
        poll_fn(|context| {
            if closed.is_none()
                && let Poll::Ready(end) = Pin::new(&mut self.connection).poll(context)
            {
                closed = Some(end);
            }
            // Only the connection, which was polled just now, makes it ready: no need to be woken for it.
            match reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut error)) => {
                    let unsent = error.take_message();
                    Poll::Ready(Err((LinkError::of(error.error()), unsent)))
                }
                Poll::Pending => match &closed {
                    None => Poll::Pending,
                    Some(Ok(())) => Poll::Ready(Err((LinkError::Server("the connection was closed".to_owned()), None))),
                    Some(Err(error)) => Poll::Ready(Err((LinkError::of(error), None))),
                },
            }
        })
        .await
    }
}

/// The body of a forwarded request.
#[derive(Debug)]
struct Outgoing {
    body: StreamedBody,
    sent: Option<Arc<AtomicBool>>,
}

/// hyper drops a body that it has written.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::Relaxed);
        }
    }
}

impl Body for Outgoing {
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

/// The body of a reply, with the connection that it comes over. Dropped before its end, it closes the connection, by
/// which the server knows that nobody listens any more.
#[derive(Debug)]
pub struct ReplyBody {
    body: Incoming,
    link: Option<(Box<Link>, Arc<Links>)>,
}

impl ReplyBody {
    /// As [`Body::poll_frame`].
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending()
            && let Some((link, _)) = &mut self.link
        {
            if Pin::new(&mut link.connection).poll(context).is_ready() {
                // What it has read by then is in the body already.
                self.link = None;
            }
            frame = Pin::new(&mut self.body).poll_frame(context);
        }
        let over = matches!(frame, Poll::Ready(None)) || self.is_end_stream();
        if over && let Some((link, links)) = self.link.take() {
            links.keep(link);
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
