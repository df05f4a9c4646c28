//! Spans for an OpenTelemetry collector: which are sent, and whose trace they belong to.

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::span_export::{ExportError, export};
use super::spans::SpanMetrics;

/// Whose spans are sent, down to the finest.
const SENT: &str = "sidedraft::rollout";
/// How long the last spans may take to be sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Spans on their way to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Sends what its layer sees to the collector at `endpoint`, http://host:port, from tasks of `runtime`.
    ///
    /// # Errors
    /// When the endpoint is not a URL or TLS cannot be set up. Whether anybody listens there is not asked.
    pub fn start(endpoint: &str, metrics: &SpanMetrics, runtime: Handle) -> Result<Self, ExportError> {
        let processor = export(endpoint, metrics, runtime)?;
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource()).build();
        Ok(Self { provider })
    }

    /// What makes spans of the OpenTelemetry kind of those that it sees.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let layer = tracing_opentelemetry::layer().with_tracer(self.provider.tracer("sidedraft"));
        // Places in the source and the threads that tasks happened to be on say nothing to an operator.
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(SENT, LevelFilter::DEBUG))
    }

    /// Sends what there still is, for a while.
    pub fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Who sends: what the standard variables say, or this program.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// Makes `span` part of the trace that a client's headers name (W3C's `traceparent`), where spans are sent.
pub fn join(span: &Span, headers: &HeaderMap) {
    if !tracing::enabled!(target: SENT, Level::DEBUG) {
        return;
    }
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // Without a trace in the headers this begins one. It fails for a span that has begun, which this one has not.
    let _ = span.set_parent(context);
}
