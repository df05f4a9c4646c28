//! Sidedraft: exact speculative decoding as a sidecar proxy in front of an unmodified vLLM server.

pub mod api;
pub mod cli;
pub mod config;
pub mod draft;
pub mod history;
pub mod model;
pub mod rollout;
pub mod secret;
pub mod setup;
pub mod speculation;
pub mod telemetry;
pub mod text;
pub mod tls;
pub mod upstream;
pub mod verify;
