//! Metrics, log lines and traces.

mod control;
mod figure;
mod history;
mod members;
mod metrics;
mod page;
mod panics;
mod span_export;
mod spans;
mod speculation;
mod timer;
mod traces;
mod tracing_setup;

pub use control::ControlMetrics;
pub use figure::Kind;
pub use history::{HistoryMetrics, SharedHistoryMetrics};
pub use metrics::{Metrics, Opened, Outcome, RequestMetrics};
pub use page::merge;
pub use panics::{PanicMetrics, Panicked, Place, message_of};
pub use span_export::ExportError;
pub use spans::SpanMetrics;
pub use speculation::{DraftMetrics, SpeculationMetrics};
pub use timer::Timer;
pub use traces::{Traces, join};
pub use tracing_setup::{LogFormat, init_tracing};
