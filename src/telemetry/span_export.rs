//! The way of finished spans to a collector, by OTLP over HTTP. Whoever makes spans never waits for it: those that find too
//! many waiting are lost, and so are those that it does not take, and both are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::runtime::Handle;

use super::spans::SpanMetrics;

/// Spans that may wait for the collector.
const MOST_WAITING: usize = 8192;
/// How long it may take for one call.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The endpoint is not a URL.
    #[error(transparent)]
    Endpoint(#[from] ExporterBuildError),
    /// No HTTP client can be made.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// What takes finished spans, and sends them in batches to the collector at `endpoint`.
pub(super) fn export(
    endpoint: &str,
    metrics: &SpanMetrics,
    runtime: Handle,
) -> Result<impl SpanProcessor + use<>, ExportError> {
    let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Client { http, runtime })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()?;
    let (waiting, metrics) = (Arc::<AtomicUsize>::default(), metrics.clone());
    let counted =
        Counted { exporter, waiting: Arc::clone(&waiting), metrics: metrics.clone(), fails: AtomicBool::default() };
    // Its own bound is never met: what it loses, it does not tell.
    let config = BatchConfigBuilder::default().with_max_queue_size(2 * MOST_WAITING).build();
    let batches = BatchSpanProcessor::builder(counted).with_batch_config(config).build();
    Ok(Bounded { batches, waiting, metrics })
}

/// Makes the calls of the thread that collects batches, which has no runtime of its own.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, request) = (self.http.clone(), reqwest::Request::try_from(request)?);
        let call = async move {
            let reply = http.execute(request).await?;
            let mut response = Response::new(Bytes::new());
            (*response.status_mut(), *response.headers_mut()) = (reply.status(), reply.headers().clone());
            *response.body_mut() = reply.bytes().await?;
            Ok(response)
        };
        self.runtime.spawn(call).await?
    }
}

/// Counts what becomes of batches.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    metrics: SpanMetrics,
    /// Whether the last batch was lost.
    fails: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let failed = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) => self.metrics.exported.inc_by(spans as u64),
            Err(error) => {
                self.metrics.lost("collector", spans);
                // Once, and not with every batch of a long outage.
                if !failed {
                    tracing::warn!(%error, "the collector takes no spans");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Loses the spans for which there is no room.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    metrics: SpanMetrics,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.lost("queue", 1);
            return;
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}
