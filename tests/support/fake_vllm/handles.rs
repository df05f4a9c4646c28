//! What a test can ask of, and do to, the engine of a running fake: its weights, its pauses, its requests.

use super::FakeVllm;
use super::faults::{Fault, Hang};
use super::language::LanguageModel;
use super::scheduler::Pause;
use super::stepper::EngineLoad;

impl FakeVllm {
    /// The model after `weights` were loaded: a number given to `/update_weights`, to `reload_weights` or to
    /// `/v1/load_lora_adapter`, or a label given to [`FakeVllm::set_weights`]. `"default"` is what the server starts with.
    #[must_use]
    pub fn language_of(&self, weights: impl std::fmt::Display) -> LanguageModel {
        self.shared.engine.language_of(&weights.to_string())
    }

    /// What replies call the weights now. Loading weights does not change it; `/update_weight_version` does.
    #[must_use]
    pub fn weight_version(&self) -> String {
        self.shared.engine.version()
    }

    /// The next request whose path contains `pattern` is held once a sequence of it has `tokens` output tokens, before
    /// the next is sampled; 0 holds it before the first. An abort ends it all the same.
    pub fn hold_at_token(&self, pattern: &str, tokens: usize) -> Hang {
        self.hold_at_token_times(pattern, tokens, 1)
    }

    /// As [`FakeVllm::hold_at_token`], for `times` requests that one handle releases together.
    pub fn hold_at_token_times(&self, pattern: &str, tokens: usize, times: usize) -> Hang {
        self.shared.faults.arm_hang(pattern, times, |hang| Fault::HoldAtToken(tokens, hang))
    }

    /// Whether the engine is paused, or asleep with its scheduling.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.engine.scheduler.paused() != Pause::No
    }

    /// Returns once a pause has begun: one that waits for requests has not returned then.
    pub async fn wait_until_paused(&self) {
        self.shared.engine.scheduler.wait_until_paused().await;
    }

    /// Requests that have a token at least and are not done. A frozen one counts; [`FakeVllm::running`] counts every
    /// request whose reply is not complete.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.shared.engine.scheduler.begun()
    }

    /// Requests that came while the engine was paused, and wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.engine.scheduler.queued()
    }

    /// Returns once at least `count` requests wait for a pause to end.
    pub async fn wait_for_queued(&self, count: usize) {
        self.shared.engine.scheduler.wait_for_queued(count).await;
    }

    /// What the step loop has, where there is one.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        self.shared.engine.pace.as_ref().map(|pace| pace.stepper.load()).unwrap_or_default()
    }
}
