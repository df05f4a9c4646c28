//! What the sidecar tells of what it does, besides its metrics.

use clap::Args;

use crate::telemetry::LogFormat;

/// Settings of log lines and traces.
#[derive(Debug, Clone, Args)]
pub struct TellingSettings {
    /// What to log, as in RUST_LOG: error, warn, info, debug, or per module
    #[arg(long, env = "SIDEDRAFT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How to write log lines
    #[arg(long, env = "SIDEDRAFT_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,

    /// An OpenTelemetry collector, http://host:4318: a span for each rollout and each of its steps is sent to its
    /// /v1/traces, by OTLP over HTTP. OpenTelemetry's own variables choose samples, headers and names (OTEL_TRACES_SAMPLER,
    /// OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, …)
    #[arg(long, env = "SIDEDRAFT_OTLP_ENDPOINT", value_parser = endpoint, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

fn endpoint(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match (url.scheme_str(), url.authority(), url.query()) {
        (Some("http" | "https"), Some(authority), None) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err("must be http://host:port or https://host:port".to_owned()),
    }
}
