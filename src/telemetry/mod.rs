//! Metrics and tracing set-up.

mod metrics;
mod page;
mod tracing_setup;

pub use metrics::{ControlMetrics, DraftMetrics, Metrics, Outcome, RequestMetrics, SpeculationMetrics, Timer};
pub use page::merge;
pub use tracing_setup::{LogFormat, init_tracing};
