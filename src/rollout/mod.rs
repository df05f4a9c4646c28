//! One rollout from prompt to finish: propose, verify, accept, commit.

pub mod controller;
mod drafters;
mod driver;
mod sequence;

pub use drafters::{DrafterFactory, Drafters};
pub use driver::{Delta, Engine, EngineSettings, Rollout, RolloutError};
pub use sequence::{Finish, FinishReason, FinishRules, Sequence, StopReason};
