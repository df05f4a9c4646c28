//! What clients see: routes, wire types, validation, errors, server-sent events.

mod body;
mod chat;
mod completions;
mod control;
mod error;
mod events;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod generate;
mod health;
mod limits;
mod metrics_page;
mod openai;
mod own;
mod page;
pub mod readiness;
mod reason;
mod refusal;
mod reply;
mod route;
mod sampling;
mod server;
mod sidecar;
mod speculated;
mod stopping;
mod timed;

pub use limits::Limits;
pub use readiness::{EngineBuilder, Readiness};
pub use server::{Door, serve};
pub use sidecar::{Sidecar, SidecarSettings};
