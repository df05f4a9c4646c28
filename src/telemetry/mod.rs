//! Metrics and tracing set-up.

mod control;
mod figure;
mod history;
mod members;
mod metrics;
mod page;
mod speculation;
mod timer;
mod tracing_setup;

pub use control::ControlMetrics;
pub use figure::Kind;
pub use history::{HistoryMetrics, SharedHistoryMetrics};
pub use metrics::{Metrics, Outcome, RequestMetrics};
pub use page::merge;
pub use speculation::{DraftMetrics, SpeculationMetrics};
pub use timer::Timer;
pub use tracing_setup::{LogFormat, init_tracing};
