//! Where log lines go, and with them the spans in which they are written.

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::traces::Traces;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log lines that pass `filter` (as in `RUST_LOG`) to standard error, and spans to `traces`, if they are wanted.
///
/// # Errors
/// When the filter cannot be parsed or logging was set up before.
pub fn init_tracing(filter: &str, format: LogFormat, traces: Option<&Traces>) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let set = match traces {
        // One filter for all, so that what it leaves out costs nothing.
        None => Registry::default().with(filter).with(lines(format)).try_init(),
        Some(traces) => Registry::default().with(lines(format).with_filter(filter)).with(traces.layer()).try_init(),
    };
    set.map_err(|error| error.to_string())
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    }
}
