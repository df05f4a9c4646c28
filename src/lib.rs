//! Sidedraft: exact speculative decoding as a sidecar proxy in front of an unmodified vLLM server.

pub mod draft;
pub mod model;
pub mod speculation;
pub mod upstream;
