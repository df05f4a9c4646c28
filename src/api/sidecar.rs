//! Which request goes where.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::service::Service;
use tokio::sync::watch;

use super::body::{Body, Read, full, incoming, read};
use super::control::{self, Action};
use super::error::error_response;
use super::forward::forward;
use super::readiness::{EngineBuilder, Readiness};
use super::reason::Reason;
use super::speculated::{self, Job, Reply};
use super::timed::Timed;
use super::{chat, completions, generate, health, metrics_page};
use crate::rollout::Engine;
use crate::telemetry::{Metrics, Outcome, Timer};
use crate::upstream::Upstream;

/// What the sidecar serves with.
pub struct SidecarSettings {
    /// The server.
    pub upstream: Upstream,
    /// Makes an engine for the server once it is up.
    pub builder: Arc<dyn EngineBuilder>,
    /// What is counted.
    pub metrics: Metrics,
    /// Requests with longer bodies are forwarded unread.
    pub max_body_bytes: usize,
}

/// The sidecar as a [`hyper::service::Service`]. Cheap to clone.
#[derive(Clone)]
pub struct Sidecar {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    metrics: Arc<Metrics>,
    readiness: watch::Receiver<Readiness>,
    max_body_bytes: usize,
}

impl Sidecar {
    /// A sidecar that starts to watch its server at once, on the current Tokio runtime, until its last clone is gone.
    #[must_use]
    pub fn start(settings: SidecarSettings) -> Self {
        let SidecarSettings { upstream, builder, metrics, max_body_bytes } = settings;
        let (state, readiness) = watch::channel(Readiness::Waiting);
        tokio::spawn(super::readiness::watch(upstream.clone(), builder, metrics.clone(), state));
        let shared = Shared { upstream, metrics: Arc::new(metrics), readiness, max_body_bytes };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until the server was probed.
    pub async fn ready(&self) {
        let mut readiness = self.shared.readiness.clone();
        // The watching task lives as long as this sidecar does, so the channel stays open.
        let _ = readiness.wait_for(|state| !matches!(state, Readiness::Waiting)).await;
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What the sidecar answers itself, or may.
    async fn respond(self, request: Request<Incoming>, route: Route) -> Response<Timed> {
        let shared = &self.shared;
        match route {
            Route::Health => health::health(&shared.upstream).await.map(Timed::from),
            Route::Metrics => metrics_page::metrics_page(&shared.upstream, &shared.metrics).await.map(Timed::from),
            Route::Speculated(endpoint) => self.speculate(request, endpoint).await,
            Route::Control(action, name) => self.control(request, action, name).await,
        }
    }

    async fn speculate(&self, request: Request<Incoming>, endpoint: Endpoint) -> Response<Timed> {
        let timer = Timer::start();
        let readiness = self.shared.readiness.borrow().clone();
        let engine = match readiness {
            Readiness::Ready(engine) => engine,
            Readiness::Waiting => return self.forward(request.map(incoming), "not_probed", timer).await,
            Readiness::ForwardOnly(reason) => return self.forward(request.map(incoming), reason, timer).await,
        };
        if !is_plain_json(request.headers()) {
            return self.forward(request.map(incoming), "content_type", timer).await;
        }
        let (head, body) = request.into_parts();
        let body = match read(body, self.shared.max_body_bytes).await {
            Ok(Read::Whole(body)) => body,
            Ok(Read::TooLong(body)) => {
                return self.forward(Request::from_parts(head, body), "body_too_long", timer).await;
            }
            Err(error) => return self.unreadable(&error, timer),
        };
        let reply = match endpoint.prepare(&engine, &head, &body).await {
            Ok(job) => speculated::answer(&engine, &self.shared.metrics, job, timer).await,
            Err(reason) => Reply::Forward(reason),
        };
        match reply {
            Reply::Ready(response) => response.map(Timed::from),
            Reply::Forward(reason) => {
                if let Reason::UnknownField(name) = &reason {
                    self.shared.metrics.requests.unknown_field(name);
                }
                self.forward(Request::from_parts(head, full(body)), reason.name(), timer).await
            }
        }
    }

    async fn control(&self, request: Request<Incoming>, action: Action, route: &'static str) -> Response<Timed> {
        let timer = Timer::start();
        self.shared.metrics.control.request(route);
        let readiness = self.shared.readiness.borrow().clone();
        let Readiness::Ready(engine) = readiness else {
            return self.forward(request.map(incoming), "route", timer).await;
        };
        let (head, body) = request.into_parts();
        let (body, known) = if action.reads_body() {
            match read(body, self.shared.max_body_bytes).await {
                Ok(Read::Whole(body)) => (full(body.clone()), body),
                Ok(Read::TooLong(body)) => (body, bytes::Bytes::new()),
                Err(error) => return self.unreadable(&error, timer),
            }
        } else {
            (incoming(body), bytes::Bytes::new())
        };
        let request = Request::from_parts(head, body);
        let response = control::pass(&self.shared.upstream, engine.control(), action, request, &known).await;
        self.timed(response, "route", timer)
    }

    /// The answer to a client that broke off in the middle of its request.
    fn unreadable(&self, error: &hyper::Error, timer: Timer) -> Response<Timed> {
        self.shared.metrics.requests.finished(Outcome::Cancelled, timer);
        let message = format!("the request's body could not be read: {error}");
        error_response(http::StatusCode::BAD_REQUEST, "BadRequestError", &message).map(Timed::from)
    }

    async fn forward(&self, request: Request<Body>, reason: &'static str, timer: Timer) -> Response<Timed> {
        let response = forward(&self.shared.upstream, request).await;
        self.timed(response, reason, timer)
    }

    /// Counts a forwarded request.
    fn timed(&self, response: Response<Body>, reason: &'static str, timer: Timer) -> Response<Timed> {
        response.map(|body| Timed::forwarded(body, &self.shared.metrics, reason, timer))
    }
}

/// A request that is not simply the server's to answer.
#[derive(Debug, Clone, Copy)]
enum Route {
    Health,
    Metrics,
    Speculated(Endpoint),
    /// With the name that it is counted by.
    Control(Action, &'static str),
}

impl Route {
    fn of(method: &Method, uri: &Uri) -> Option<Self> {
        match (method, uri.path()) {
            (&Method::GET, "/health") => Some(Self::Health),
            (&Method::GET, "/metrics") => Some(Self::Metrics),
            (&Method::POST, "/v1/completions") => Some(Self::Speculated(Endpoint::Completions)),
            (&Method::POST, "/v1/chat/completions") => Some(Self::Speculated(Endpoint::Chat)),
            (&Method::POST, "/inference/v1/generate") => Some(Self::Speculated(Endpoint::Generate)),
            _ => Action::of(method, uri).map(|(action, name)| Self::Control(action, name)),
        }
    }
}

/// A route whose requests are speculated.
#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Completions,
    Chat,
    Generate,
}

impl Endpoint {
    async fn prepare(self, engine: &Engine, head: &http::request::Parts, body: &bytes::Bytes) -> Result<Job, Reason> {
        match self {
            Self::Completions => completions::prepare(engine, head, body).await,
            Self::Chat => chat::prepare(engine, head, body).await,
            Self::Generate => generate::prepare(engine, head, body).await,
        }
    }
}

fn is_plain_json(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json") && !headers.contains_key(header::CONTENT_ENCODING)
}

impl Service<Request<Incoming>> for Sidecar {
    type Response = Response<Timed>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        // What is forwarded needs little room; the others' futures are large.
        match Route::of(request.method(), request.uri()) {
            None => Box::pin(async move { Ok(this.forward(request.map(incoming), "route", Timer::start()).await) }),
            Some(route) => Box::pin(async move { Ok(this.respond(request, route).await) }),
        }
    }
}
