//! What clients see: routes, wire types, validation, errors, server-sent events.

mod body;
mod chat;
mod completions;
mod control;
mod error;
mod events;
mod forward;
mod generate;
mod health;
mod metrics_page;
mod openai;
pub mod readiness;
mod reason;
mod reply;
mod sampling;
mod server;
mod sidecar;
mod speculated;
mod timed;

pub use readiness::{EngineBuilder, Readiness};
pub use server::serve;
pub use sidecar::{Sidecar, SidecarSettings};
