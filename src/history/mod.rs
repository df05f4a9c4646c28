//! Rollouts seen, by prompt: what an RL trainer samples again and again is the best draft there is.
//!
//! Nothing here is thrown away when weights move; every token says which policy version scored it. Nothing is ever shared
//! between tenants: a key holds the tenant, and keys are compared whole.
//!
//! Several sidecars can [share](shared) it through a Redis server.

mod indexes;
mod key;
mod memory;
mod rollout;
mod rows;
pub mod shared;
mod shelf;
mod store;
pub mod suffix;

pub use indexes::{Indexes, PromptIndex};
pub use key::{PromptKey, Tenant};
pub use memory::Memory;
pub use rollout::{Finish, Rollout};
pub use store::{History, Lease, RolloutId, Usage};
