//! How long things take in a server that has a cost model: the API server's threads, and the engine's steps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::api_threads::ApiThreads;
use super::cost_model::CostModel;
use super::scheduler::Scheduler;
use super::stepper::Stepper;
use crate::support::timeline::Timeline;

/// A cost model, and the time that it is in.
#[derive(Debug, Clone)]
pub struct Costs {
    /// What things cost.
    pub model: CostModel,
    /// When they happen.
    pub timeline: Timeline,
}

/// The time that a server takes.
pub struct Pace {
    costs: Costs,
    threads: Mutex<ApiThreads>,
    /// The engine.
    pub stepper: Stepper,
}

impl Pace {
    /// A server that takes what `costs` says, idle.
    #[must_use]
    pub fn start(costs: &Costs, scheduler: Arc<Scheduler>) -> Self {
        let stepper = Stepper::start(costs.model, costs.timeline.clone(), scheduler);
        Self { costs: costs.clone(), threads: Mutex::new(ApiThreads::new(costs.model.api_threads)), stepper }
    }

    /// Returns when the API server has read a request.
    pub async fn request(&self) {
        self.work(self.costs.model.request).await;
    }

    /// Returns when the API server has written a chunk of a stream.
    pub async fn chunk(&self) {
        self.work(self.costs.model.chunk).await;
    }

    async fn work(&self, work: Duration) {
        let now = self.costs.timeline.now();
        let done = self.threads.lock().unwrap_or_else(PoisonError::into_inner).book(now, work);
        self.costs.timeline.until(done).await;
    }
}
