//! Metrics and tracing set-up.

mod control;
mod members;
mod metrics;
mod page;
mod tracing_setup;

pub use control::ControlMetrics;
pub use metrics::{DraftMetrics, Metrics, Outcome, RequestMetrics, SpeculationMetrics, Timer};
pub use page::merge;
pub use tracing_setup::{LogFormat, init_tracing};
