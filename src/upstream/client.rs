//! The connection to the server: JSON calls with retry, and bare forwarding.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Serialize;
use tokio::time::Instant;

use super::body::Pieced;
use super::breaker::Breaker;
use super::error::{Refusal, UpstreamError, root_cause};
use super::links::{HELD_BACK, LinkError, Links};
use super::origin::Origin;
use super::streamed::StreamedBody;
use crate::secret::Secret;
use crate::tls::{ClientTls, TlsError, client_config};

/// How long a connection may lie idle before it is closed. vLLM's server closes one that was idle for 5 seconds
/// (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`), and a request that is sent in that moment is lost.
const IDLE: Duration = Duration::from_secs(4);
/// How long a silent connection may go unprobed: a host that has vanished says nothing.
const PROBE: Duration = Duration::from_secs(30);

/// How to reach the server.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// Base URL: `http://host:port`, possibly with a path under which the API lies.
    pub url: String,
    /// Sent as a bearer token on the sidecar's own calls (probe, health, metrics), never on a client's behalf.
    pub api_key: Option<Secret>,
    /// How to speak to it where the URL is https.
    pub tls: ClientTls,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long the server may stay silent within one reply.
    pub read_timeout: Duration,
    /// How often a call that failed transiently is made again.
    pub retries: u32,
}

impl UpstreamOptions {
    /// The usual options for the server at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            tls: ClientTls::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(600),
            retries: 2,
        }
    }
}

/// One vLLM server. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    base: String,
    own_headers: HeaderMap,
    retries: u32,
    calls: reqwest::Client,
    forwards: Arc<Links>,
    breaker: Arc<Breaker>,
}

/// Why the options do not describe a server.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The URL is not one.
    #[error("the upstream URL {url:?} is not valid: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API key cannot stand in a header.
    #[error("the upstream API key contains characters that cannot be sent in a header")]
    ApiKey,
    /// The URL names a user, whose password every error and log line would show.
    #[error("the upstream URL holds credentials: they belong into --upstream-api-key")]
    Credentials,
    /// Certificates that cannot be used.
    #[error("certificates for the upstream server: {0}")]
    Tls(#[from] TlsError),
    /// No memory for a connection pool and the like.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

impl Upstream {
    /// A client for the server that `options` describe. Connects to nothing yet.
    ///
    /// # Errors
    /// When the options cannot describe a server.
    pub fn new(options: &UpstreamOptions) -> Result<Self, OptionsError> {
        let invalid = |reason: String| OptionsError::Url { url: options.url.clone(), reason };
        if options.url.split(['/', '?']).nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(OptionsError::Credentials);
        }
        let uri: Uri = options.url.parse().map_err(|e: http::uri::InvalidUri| invalid(e.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(invalid("expected http://host:port or https://host:port".to_owned()));
        }
        if uri.query().is_some() {
            return Err(invalid("a query has no place in it".to_owned()));
        }
        let mut own_headers = HeaderMap::new();
        if let Some(key) = &options.api_key {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| OptionsError::ApiKey)?;
            value.set_sensitive(true);
            own_headers.insert(header::AUTHORIZATION, value);
        }
        let tls = client_config(&options.tls, uri.scheme_str() == Some("https"))?;
        let calls = reqwest::Client::builder()
            .use_preconfigured_tls(tls.clone())
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.read_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .tcp_keepalive(PROBE)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(|error| OptionsError::Client(root_cause(&error)))?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(options.connect_timeout));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(PROBE));
        tcp.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let breaker = Arc::new(Breaker::new(Instant::now()));
        let forwards = Links::new(uri, connector, Arc::clone(&breaker));
        let forwards = forwards.ok_or_else(|| invalid("the host cannot be named".to_owned()))?;
        Ok(Self {
            base: options.url.trim_end_matches('/').to_owned(),
            own_headers,
            retries: options.retries,
            calls,
            forwards: Arc::new(forwards),
            breaker,
        })
    }

    /// The server's base URL, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// The origin of the sidecar's own calls.
    #[must_use]
    pub fn own_origin(&self, model: Option<String>) -> Origin {
        Origin { headers: self.own_headers.clone(), model, ..Origin::default() }
    }

    /// Sends a request on as it is: path and query byte for byte, body and reply streamed.
    ///
    /// # Errors
    /// When no reply comes.
    pub async fn forward(&self, request: Request<StreamedBody>) -> Result<Response<StreamedBody>, UpstreamError> {
        let sent = self.forwards.send(request).await;
        sent.map_err(|error| match error {
            LinkError::Server(reason) => UpstreamError::Unreachable { url: self.base.clone(), reason },
            LinkError::Client(fault) => UpstreamError::Intake(fault),
        })
    }

    /// Closes connections that nothing was forwarded over for long, or that the server has closed.
    pub fn sweep(&self) {
        self.forwards.sweep();
    }

    /// How often connections were held back because one after the other could not be opened.
    #[must_use]
    pub fn breaker_openings(&self) -> u64 {
        self.breaker.openings()
    }

    /// Makes a call of the sidecar's own, also where others are held back, and returns the body of a successful reply.
    ///
    /// # Errors
    /// When no reply comes or it is not a success.
    pub async fn get(&self, path: &'static str) -> Result<Bytes, UpstreamError> {
        let request = self.calls.get(format!("{}{path}", self.base)).headers(self.own_headers.clone());
        let response = self.sent(request.send().await)?;
        self.whole(response).await
    }

    /// What came of a call, told to the breaker.
    fn sent(&self, result: reqwest::Result<reqwest::Response>) -> Result<reqwest::Response, UpstreamError> {
        match result {
            Ok(response) => {
                self.breaker.succeeded();
                Ok(response)
            }
            Err(error) => {
                if error.is_connect() {
                    self.breaker.failed(Instant::now());
                }
                Err(self.unreachable(&error))
            }
        }
    }

    /// Posts `body` as JSON and returns the body of a successful reply, trying again where that can help.
    ///
    /// # Errors
    /// The last try's error.
    pub(super) async fn post<B: Serialize>(
        &self,
        origin: &Origin,
        path: &'static str,
        body: &B,
    ) -> Result<Bytes, UpstreamError> {
        self.post_body(origin, path, encode(path, body)?.into()).await
    }

    /// The same with a body that is JSON already.
    pub(super) async fn post_body(
        &self,
        origin: &Origin,
        path: &'static str,
        body: Pieced,
    ) -> Result<Bytes, UpstreamError> {
        let mut retry = Retry::new(self.retries);
        loop {
            let tried = match self.try_once(origin, path, body.clone()).await {
                Ok(response) => self.whole(response).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(reply) => return Ok(reply),
                Err(error) => retry.after(path, error).await?,
            }
        }
    }

    /// Posts JSON and returns a successful reply whose body is still to be read.
    ///
    /// # Errors
    /// The last try's error.
    pub(super) async fn open(
        &self,
        origin: &Origin,
        path: &'static str,
        body: Pieced,
    ) -> Result<reqwest::Response, UpstreamError> {
        let mut retry = Retry::new(self.retries);
        loop {
            match self.try_once(origin, path, body.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => retry.after(path, error).await?,
            }
        }
    }

    async fn try_once(
        &self,
        origin: &Origin,
        path: &'static str,
        body: Pieced,
    ) -> Result<reqwest::Response, UpstreamError> {
        if !self.breaker.admits(Instant::now()) {
            return Err(UpstreamError::Unreachable { url: self.base.clone(), reason: HELD_BACK.to_owned() });
        }
        let request = self
            .calls
            .request(Method::POST, format!("{}{path}", self.base))
            .headers(origin.headers.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(reqwest::Body::wrap(body));
        let response = self.sent(request.send().await)?;
        if response.status().is_success() {
            return Ok(response);
        }
        match self.whole(response).await {
            Err(error) => Err(error),
            Ok(_) => Err(UpstreamError::Protocol { path, reason: "the status changed while reading".to_owned() }),
        }
    }

    async fn whole(&self, response: reqwest::Response) -> Result<Bytes, UpstreamError> {
        let status = response.status();
        let headers = (!status.is_success()).then(|| response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        match headers {
            None => Ok(body),
            Some(headers) => Err(UpstreamError::Status(Box::new(Refusal { status, headers, body }))),
        }
    }

    pub(super) fn unreachable(&self, error: &dyn std::error::Error) -> UpstreamError {
        UpstreamError::Unreachable { url: self.base.clone(), reason: root_cause(error) }
    }
}

fn encode<B: Serialize>(path: &'static str, body: &B) -> Result<Bytes, UpstreamError> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| UpstreamError::Protocol { path, reason: error.to_string() })
}

/// The tries that a call has left, with a pause that grows between them.
struct Retry {
    left: u32,
    pause: Duration,
}

impl Retry {
    fn new(retries: u32) -> Self {
        Self { left: retries, pause: Duration::from_millis(50) }
    }

    /// Waits for the next try, or hands `error` back where there is none or it would not help.
    async fn after(&mut self, path: &'static str, error: UpstreamError) -> Result<(), UpstreamError> {
        if self.left == 0 || !error.is_transient() {
            return Err(error);
        }
        self.left -= 1;
        tracing::debug!(path, %error, "trying again");
        tokio::time::sleep(self.pause).await;
        self.pause *= 4;
        Ok(())
    }
}
