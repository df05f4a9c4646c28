//! The vLLM client: connections, wire types, capability probe, health, retry.
//!
//! Nothing here knows of speculation: a call is what vLLM's API can be asked, a reply is what it said.

pub mod capabilities;
pub mod client;
pub mod completions;
pub mod error;
pub mod generate;
pub mod origin;
pub mod probe;
pub mod stream;
pub mod tokens;
pub mod wire;

pub use capabilities::{Capabilities, EndToken, GenerateRoute, GenerateSupport, Runner};
pub use client::{Upstream, UpstreamOptions};
pub use completions::{CompletionCall, CompletionChoice, CompletionReply};
pub use error::UpstreamError;
pub use generate::{GenerateCall, GenerateReply};
pub use origin::Origin;
pub use wire::{Candidate, Sampled, SamplingFields};
