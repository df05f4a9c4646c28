//! What clients see: routes, wire types, validation, errors, server-sent events.

mod body;
mod completions;
mod error;
mod forward;
mod health;
mod metrics_page;
pub mod readiness;
mod server;
mod sidecar;

pub use readiness::{EngineBuilder, Readiness};
pub use server::serve;
pub use sidecar::{Sidecar, SidecarSettings};
