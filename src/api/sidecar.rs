//! What becomes of a request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use tokio::sync::watch;

use super::body::{Body, Read, full, read};
use super::control::{self, Action};
use super::error::{error_response, internal_error};
use super::forward::forward;
use super::limits::{Limits, Room, head_bytes};
use super::own::is_authorised;
use super::readiness::{EngineBuilder, Readiness};
use super::reason::Reason;
use super::refusal::Refusal;
use super::route::{Endpoint, Route, is_plain_json};
use super::speculated::{self, Common, Reply};
use super::stopping::{Stop, Stopping};
use super::timed::Timed;
use super::{health, metrics_page};
use crate::secret::Secret;
use crate::telemetry::{Kind, Metrics, Outcome, Place, Timer};
use crate::upstream::streamed::BodyError;
use crate::upstream::{Intake, IntakeError, IntakeLimits, Upstream};

/// What the sidecar serves with.
pub struct SidecarSettings {
    /// The server.
    pub upstream: Upstream,
    /// Makes an engine for the server once it is up.
    pub builder: Arc<dyn EngineBuilder>,
    /// What is counted.
    pub metrics: Metrics,
    /// What clients may take.
    pub limits: Limits,
    /// The key of the sidecar's own routes, if they need one.
    pub api_key: Option<Secret>,
}

/// The sidecar as a [`hyper::service::Service`]. Cheap to clone.
#[derive(Clone)]
pub struct Sidecar {
    shared: Arc<Shared>,
    /// Whether there are more connections than may be, and this serves one of those.
    is_full: bool,
}

struct Shared {
    upstream: Upstream,
    metrics: Arc<Metrics>,
    readiness: watch::Receiver<Readiness>,
    limits: Limits,
    room: Room,
    stop: Stop,
    stopping: Stopping,
    api_key: Option<Secret>,
}

impl Sidecar {
    /// A sidecar that starts to watch its server at once, on the current Tokio runtime, until its last clone is gone.
    #[must_use]
    pub fn start(settings: SidecarSettings) -> Self {
        let SidecarSettings { upstream, builder, metrics, limits, api_key } = settings;
        let (state, readiness) = watch::channel(Readiness::Waiting);
        let of = (upstream.clone(), builder, metrics.clone(), state);
        metrics.panics.tend(move || {
            let (upstream, builder, metrics, state) = of.clone();
            super::readiness::watch(upstream, builder, metrics, state)
        });
        show_tasks(&metrics);
        let (metrics, room, stop) = (Arc::new(metrics), Room::new(limits.rollouts), Stop::new());
        let stopping = stop.listen();
        let shared = Shared { upstream, metrics, readiness, limits, room, stop, stopping, api_key };
        Self { shared: Arc::new(shared), is_full: false }
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

    /// What clients may take.
    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Ends the rollouts under way, of which each client is told.
    pub(super) fn stop(&self) {
        self.shared.stop.now();
    }

    /// The same for a connection too many: it answers only what is asked about itself.
    pub(super) fn full(&self) -> Self {
        Self { is_full: true, ..self.clone() }
    }

    /// Why a request is turned away, if it is, as far as its head tells.
    fn refusal(&self, request: &Request<Incoming>, route: Option<Route>) -> Option<Refusal> {
        let limits = &self.shared.limits;
        if self.is_full && !route.is_some_and(Route::is_about_here) {
            return Some(Refusal::Full(limits.connections));
        }
        if head_bytes(request.uri(), request.headers()) > limits.header_bytes {
            return Some(Refusal::HeadTooLong(limits.header_bytes));
        }
        if request.body().size_hint().lower() > limits.body_bytes {
            return Some(Refusal::BodyTooLong(limits.body_bytes));
        }
        let locked = route.is_some_and(Route::needs_key);
        let refused = locked && !is_authorised(request.headers(), self.shared.api_key.as_ref());
        refused.then_some(Refusal::Unauthorised)
    }

    fn refuse(&self, refusal: Refusal, timer: Timer) -> Response<Timed> {
        self.shared.metrics.requests.finished(Outcome::Refused(refusal.name()), timer);
        refusal.response().map(Timed::from)
    }

    /// What the sidecar answers itself, or may.
    async fn respond(&self, request: Request<Body>, route: Route) -> Response<Timed> {
        let shared = &self.shared;
        match route {
            Route::Health => health::health(&shared.upstream).await.map(Timed::from),
            Route::Metrics => metrics_page::metrics_page(&shared.upstream, &shared.metrics).await.map(Timed::from),
            Route::Own(own) => own.respond(&shared.readiness.borrow(), &shared.metrics).map(Timed::from),
            Route::Speculated(endpoint) => self.speculate(request, endpoint).await,
            Route::Control(action, name) => self.control(request, action, name).await,
        }
    }

    async fn speculate(&self, request: Request<Body>, endpoint: Endpoint) -> Response<Timed> {
        let timer = Timer::start();
        let readiness = self.shared.readiness.borrow().clone();
        let engine = match readiness {
            Readiness::Ready(engine) => engine,
            Readiness::Waiting => return self.forward(request, "not_probed", timer).await,
            Readiness::ForwardOnly(reason) => return self.forward(request, reason, timer).await,
        };
        if !is_plain_json(request.headers()) {
            return self.forward(request, "content_type", timer).await;
        }
        let (head, body) = request.into_parts();
        let body = match read(body, self.shared.limits.parsed_bytes).await {
            Ok(Read::Whole(body)) => body,
            Ok(Read::TooLong(body)) => {
                return self.forward(Request::from_parts(head, body), "body_too_long", timer).await;
            }
            Err(error) => return self.unreadable(&error, timer),
        };
        let mut stopping = self.shared.stopping.clone();
        let has_room = self.shared.room.is_left();
        let prepared = tokio::select! {
            biased;
            prepared = endpoint.prepare(&engine, &head, &body, has_room) => prepared,
            () = stopping.reached() => return self.refuse(Refusal::Stopping, timer),
        };
        let reply = match prepared {
            Ok(job) => speculated::answer(&engine, self.common(), job, timer).await,
            Err(reason) => Reply::Forward(reason),
        };
        match reply {
            Reply::Ready(response) => response.map(Timed::from),
            Reply::NoRoom => self.refuse(Refusal::NoRoom(self.shared.limits.rollouts), timer),
            Reply::Forward(reason) => {
                if let Reason::UnknownField(name) = &reason {
                    self.shared.metrics.requests.unknown_field(name);
                }
                self.forward(Request::from_parts(head, full(body)), reason.name(), timer).await
            }
        }
    }

    fn common(&self) -> Common<'_> {
        let Shared { metrics, room, stopping, .. } = &*self.shared;
        Common { metrics, room, stopping }
    }

    async fn control(&self, request: Request<Body>, action: Action, route: &'static str) -> Response<Timed> {
        let timer = Timer::start();
        self.shared.metrics.control.request(route);
        let readiness = self.shared.readiness.borrow().clone();
        let Readiness::Ready(engine) = readiness else {
            return self.forward(request, "route", timer).await;
        };
        let (head, body) = request.into_parts();
        let (body, known) = if action.reads_body() {
            match read(body, self.shared.limits.parsed_bytes).await {
                Ok(Read::Whole(body)) => (full(body.clone()), body),
                Ok(Read::TooLong(body)) => (body, bytes::Bytes::new()),
                Err(error) => return self.unreadable(&error, timer),
            }
        } else {
            (body, bytes::Bytes::new())
        };
        let request = Request::from_parts(head, body);
        let (upstream, panics) = (&self.shared.upstream, &self.shared.metrics.panics);
        let response = control::pass(upstream, engine.control(), panics, action, request, &known).await;
        self.timed(response, "route", timer)
    }

    /// The answer to a client whose request did not come to its end.
    fn unreadable(&self, error: &BodyError, timer: Timer) -> Response<Timed> {
        if let Some(refusal) = IntakeError::among(&**error).and_then(Refusal::of) {
            return self.refuse(refusal, timer);
        }
        self.shared.metrics.requests.finished(Outcome::Cancelled, timer);
        error_response(http::StatusCode::BAD_REQUEST, "BadRequestError", &error.to_string()).map(Timed::from)
    }

    async fn forward(&self, request: Request<Body>, reason: &'static str, timer: Timer) -> Response<Timed> {
        let response = forward(&self.shared.upstream, request).await;
        self.timed(response, reason, timer)
    }

    /// The answer that `work` comes to, or a 500 where it panics.
    async fn caught(&self, work: impl Future<Output = Response<Timed>>) -> Response<Timed> {
        let (metrics, timer) = (&self.shared.metrics, Timer::start());
        metrics.panics.catch(Place::Handler, work).await.unwrap_or_else(|_| {
            metrics.requests.finished(Outcome::Failed, timer);
            internal_error("the sidecar could not answer").map(Timed::from)
        })
    }

    /// Counts a forwarded request.
    fn timed(&self, response: Response<Body>, reason: &'static str, timer: Timer) -> Response<Timed> {
        response.map(|body| Timed::forwarded(body, &self.shared.metrics, reason, timer))
    }
}

/// Puts the number of the runtime's tasks on the metrics page: whatever leaks holds one.
fn show_tasks(metrics: &Metrics) {
    let runtime = tokio::runtime::Handle::current();
    let tasks = move || runtime.metrics().num_alive_tasks() as u64;
    if let Err(error) = metrics.figure(Kind::Gauge, "sidedraft_tasks", "Tasks of the asynchronous runtime.", tasks) {
        tracing::error!(%error, "the number of tasks is not on the metrics page");
    }
}

impl Service<Request<Incoming>> for Sidecar {
    type Response = Response<Timed>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let route = Route::of(request.method(), request.uri());
        if let Some(refusal) = self.refusal(&request, route) {
            return Box::pin(std::future::ready(Ok(self.refuse(refusal, Timer::start()))));
        }
        let Limits { body_bytes, body_timeout, .. } = self.shared.limits;
        let limits = IntakeLimits { bytes: body_bytes, patience: body_timeout };
        let request = request.map(|body| Body::Taken(Intake::new(body, limits)));
        let this = self.clone();
        // What is forwarded needs little room; the others' futures are large.
        match route {
            None => Box::pin(async move { Ok(this.caught(this.forward(request, "route", Timer::start())).await) }),
            Some(route) => Box::pin(async move { Ok(this.caught(this.respond(request, route)).await) }),
        }
    }
}
