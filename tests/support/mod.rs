//! What the integration tests share: a fake vLLM whose probabilities are known in closed form, and the statistics that
//! judge whether a sample came from them.

pub mod draft_engine;
pub mod fake_vllm;
pub mod harness;
pub mod nobody;
pub mod planted;
pub mod planted_panics;
pub mod simulated_drafters;
pub mod stats;
pub mod timeline;
