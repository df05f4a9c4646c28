//! The HTTP side: connections, the record of what came in, faults, and the way to each route.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::activity::{Activity, Running};
use super::batch::Call;
use super::config::Version;
use super::engine::Engine;
use super::error::ApiError;
use super::faults::{Fault, Faults};
use super::reply::{self, Body, StreamFault};
use super::{chat, completions, control, generate, info, lora, render};

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// The query, where there was one.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// The number of its connection, from 0.
    pub connection: usize,
}

impl Received {
    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What the connections of a server share. It outlives a kill.
pub struct Shared {
    pub engine: Arc<Engine>,
    pub activity: Arc<Activity>,
    pub faults: Arc<Faults>,
    pub received: Mutex<Vec<Received>>,
    /// Accepted so far.
    pub connections: AtomicUsize,
}

/// Serves until it is dropped, and drops every connection with itself.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true).unwrap();
                let connection = shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&shared), connection, request));
                    // An error here is a client that left, or a fault.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers one request; an error closes the connection without a reply.
async fn answer(shared: Arc<Shared>, connection: usize, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path().to_owned();
    let received = Received {
        method: head.method,
        path: path.clone(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
        connection,
    };
    if shared.engine.config.records {
        shared.received.lock().unwrap_or_else(PoisonError::into_inner).push(received.clone());
    }

    let fault = shared.faults.take(&path);
    let generates = matches!(path.as_str(), "/v1/completions" | "/inference/v1/generate" | "/v1/chat/completions");
    let running = (generates || matches!(fault, Some(Fault::Hang(_)))).then(|| shared.activity.begin());
    let mut call = Call {
        engine: Arc::clone(&shared.engine),
        faults: Arc::clone(&shared.faults),
        stream_fault: StreamFault::default(),
        token_hold: None,
        running,
    };
    let mut spoil = None;
    match fault {
        None => {}
        Some(Fault::Disconnect) => {
            call.running.into_iter().for_each(Running::finish);
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the fake hangs up"));
        }
        Some(Fault::Status(status, retry_after)) => {
            call.running.into_iter().for_each(Running::finish);
            let kind = status.canonical_reason().unwrap_or_default();
            let mut response = reply::error(&ApiError::new(status, kind, "a fault of the fake"), &shared.engine.config);
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            return Ok(response);
        }
        Some(Fault::Spoil(how)) => spoil = Some(how),
        Some(Fault::CutStream(after)) => call.stream_fault.cut_after = Some(after),
        Some(Fault::HangStream(after, hang)) => call.stream_fault.hang_after = Some((after, hang)),
        Some(Fault::HoldAtToken(tokens, hang)) => call.token_hold = Some((tokens, hang)),
        Some(Fault::Hang(hang)) => hang.hold().await,
    }
    shared.faults.before_request().await;
    if let Some(pace) = &shared.engine.pace
        && generates
    {
        pace.request().await;
    }

    let routed = route(&shared, &received, &mut call).await;
    call.running.into_iter().for_each(Running::finish);
    let response = routed.unwrap_or_else(|error| reply::error(&error, &shared.engine.config));
    match spoil {
        Some(how) => reply::spoilt(response, how).await,
        None => Ok(response),
    }
}

async fn route(shared: &Shared, request: &Received, call: &mut Call) -> Result<Response<Body>, ApiError> {
    let Shared { engine, activity, .. } = shared;
    let path = request.path.as_str();
    if !authorised(engine, request) {
        return Ok(reply::json(StatusCode::UNAUTHORIZED, &json!({"error": "Unauthorized"})));
    }
    if engine.config.dev_mode
        && let Some(reply) = control::answer(engine, request).await
    {
        return reply;
    }
    if request.method == Method::GET {
        return match path {
            "/health" => Ok(reply::text(StatusCode::OK, "", "text/plain")),
            "/metrics" => Ok(info::metrics(engine, activity)),
            "/version" => Ok(reply::json(StatusCode::OK, &info::version(engine))),
            "/v1/models" => Ok(reply::json(StatusCode::OK, &info::models(engine))),
            _ => Err(ApiError::not_found()),
        };
    }
    scale_out(engine, path)?;
    let body = body(request);
    match path {
        "/v1/completions" => completions::complete(call, &body?).await,
        "/v1/chat/completions" => chat::complete(call, &body?).await,
        "/inference/v1/generate" => generate::generate(call, &body?).await,
        "/v1/completions/render" => Ok(reply::json(StatusCode::OK, &render::completions(engine, &body?)?)),
        "/v1/chat/completions/render" => Ok(reply::json(StatusCode::OK, &render::chat(engine, &body?)?)),
        "/v1/load_lora_adapter" if engine.config.runtime_lora => lora::load(engine, &body?),
        "/v1/unload_lora_adapter" if engine.config.runtime_lora => lora::unload(engine, &body?),
        "/tokenize" => Ok(reply::json(StatusCode::OK, &info::tokenize(engine, &body?)?)),
        "/detokenize" => Ok(reply::json(StatusCode::OK, &info::detokenize(engine, &body?)?)),
        _ => Err(ApiError::not_found()),
    }
}

/// The request's JSON. The id in its header wins over the body's.
fn body(request: &Received) -> Result<Value, ApiError> {
    let mut body: Value = serde_json::from_slice(&request.body).map_err(|error| ApiError {
        kind: "Bad Request".to_owned(),
        ..ApiError::bad_request(format!("1 validation error:\n  {{'type': 'json_invalid', 'msg': '{error}'}}"))
    })?;
    let id = request.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    if let (Some(id), Some(fields)) = (id, body.as_object_mut()) {
        fields.insert("request_id".to_owned(), id.into());
    }
    Ok(body)
}

/// The routes that `--enable-scale-out` guards, or that a release did not have.
fn scale_out(engine: &Engine, path: &str) -> Result<(), ApiError> {
    let config = &engine.config;
    if !matches!(path, "/inference/v1/generate" | "/v1/completions/render" | "/v1/chat/completions/render") {
        return Ok(());
    }
    if config.version < Version::GENERATE || (config.is_rust_frontend() && path.ends_with("/render")) {
        return Err(ApiError::not_found());
    }
    if config.version >= Version::SCALE_OUT && !config.scale_out {
        let message = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "PermissionDeniedError", message));
    }
    Ok(())
}

/// vLLM asks for its key under these prefixes only: /tokenize, /metrics and the control of training are open.
fn authorised(engine: &Engine, request: &Received) -> bool {
    let guarded = ["/v1", "/v2", "/inference"].iter().any(|prefix| request.path.starts_with(prefix));
    let sent = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match &engine.config.api_key {
        Some(key) if guarded => sent.and_then(|sent| sent.strip_prefix("Bearer ")) == Some(key),
        _ => true,
    }
}
