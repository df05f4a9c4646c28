//! The vLLM client: connections, wire types, capability probe, health, retry.
//!
//! Nothing here knows of speculation: a call is what vLLM's API can be asked, a reply is what it said.

mod body;
mod breaker;
pub mod call;
pub mod capabilities;
pub mod chat;
pub mod client;
pub mod completions;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod gauges;
pub mod generate;
mod given_ids;
pub mod ids;
pub mod intake;
mod links;
pub mod origin;
pub mod probe;
pub mod prompt_rows;
pub mod renderings;
pub mod stream;
pub mod streamed;
pub mod tokens;
pub mod wire;

pub use call::{Call, Choice, Reply};
pub use capabilities::{Capabilities, ChatSupport, EndToken, GenerateRoute, GenerateSupport, Runner, TokenLimits};
pub use client::{Upstream, UpstreamOptions};
pub use error::UpstreamError;
pub use gauges::Gauges;
pub use given_ids::GivenIds;
pub use ids::{IdsText, Prompt};
pub use intake::{Intake, IntakeError, IntakeLimits};
pub use origin::Origin;
pub use prompt_rows::{PromptReply, PromptRows, PromptScores};
pub use renderings::Renderings;
pub use stream::{About, DecodedChunk, Route, Tokens};
pub use wire::{Candidate, Constraints, Sampled, SamplingFields, VersionSpan};
