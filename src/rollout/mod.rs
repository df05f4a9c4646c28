//! One rollout from prompt to finish: propose, verify, accept, commit.

pub mod control;
pub mod controller;
mod decide;
mod decode;
mod drafters;
mod driver;
mod engine;
mod opening;
mod pace;
mod past;
mod recording;
mod sequence;
mod speculate;
mod traced;
mod types;
mod versions;

pub use control::{Control, PauseMode};
pub use drafters::{DrafterFactory, Drafters, Supply};
pub use engine::{Deltas, Engine, EngineSettings};
pub use opening::Opening;
pub use past::Past;
pub use sequence::{Finish, FinishReason, FinishRules, Sequence, StopReason, TextRules};
pub use types::{Delta, Rollout, RolloutError};
pub use versions::Versions;
