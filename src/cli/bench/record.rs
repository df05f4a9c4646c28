//! What a run of the benchmark leaves behind, down to the single rollout.

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::summary::Summary;

/// One of the two ways to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Arm {
    /// The server itself.
    Direct,
    /// Through the sidecar.
    Proxied,
}

impl Arm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxied => "proxied",
        }
    }
}

/// Everything of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Sidedraft's own version.
    pub sidedraft: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// False while it runs.
    pub finished: bool,
    pub direct: Option<Server>,
    pub proxied: Option<Server>,
    pub load: Load,
    /// How rollouts come back, where epochs were measured.
    pub epochs: Option<Epochs>,
    /// What a reader should know before believing the numbers.
    pub notes: Vec<String>,
    pub cells: Vec<Cell>,
}

/// What one of the URLs said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Server {
    pub url: String,
    pub model: String,
    /// Where the server loaded the model from.
    pub root: Option<String>,
    pub max_model_len: Option<u64>,
    /// vLLM's.
    pub version: Option<String>,
    /// Whether its metrics page is the sidecar's; unknown where there is no such page.
    pub sidecar: Option<bool>,
}

/// How rollouts were asked for, the same for both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    pub rounds: usize,
    /// All rollouts of a round were started at once.
    pub together: bool,
    pub stream: bool,
    pub logprobs: bool,
    pub cache_salt: bool,
    /// Rollouts of each arm before each cell that were not counted.
    pub warmup: usize,
    /// Instead of the workload's own.
    pub max_tokens: Option<u64>,
}

/// Epochs over the same prompts, as a trainer runs them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Epochs {
    pub epochs: usize,
    /// Steps of an epoch, each with prompts of its own.
    pub steps: usize,
    /// Prompts of a step.
    pub prompts: usize,
    /// Rollouts of each prompt.
    pub samples: usize,
    /// What ran before each epoch.
    pub between: Option<String>,
}

/// One combination of workload, temperature and concurrency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cell {
    pub workload: String,
    /// The workload's own, where absent.
    pub temperature: Option<f64>,
    /// Rollouts at a time.
    pub concurrency: usize,
    /// From 1, where epochs were measured.
    pub epoch: Option<usize>,
    pub pairs: Vec<Pair>,
    pub summary: Summary,
}

/// Two rounds with the same rollouts, one right after the other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Pair {
    pub direct: Option<Round>,
    pub proxied: Option<Round>,
}

impl Pair {
    pub(super) fn of(&self, arm: Arm) -> Option<&Round> {
        match arm {
            Arm::Direct => self.direct.as_ref(),
            Arm::Proxied => self.proxied.as_ref(),
        }
    }

    pub(super) fn set(&mut self, arm: Arm, round: Round) {
        match arm {
            Arm::Direct => self.direct = Some(round),
            Arm::Proxied => self.proxied = Some(round),
        }
    }
}

/// Some rollouts through one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// Seconds since the run began.
    pub started: f64,
    /// From the first request to the end of the last reply.
    pub seconds: f64,
    pub cache_salt: Option<String>,
    pub rollouts: Vec<Rollout>,
    /// What the sidecar counted meanwhile; nothing for the direct arm.
    pub counters: Option<Counters>,
    /// Why the round counts for nothing.
    pub void: Option<String>,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollout {
    /// The line of the workload.
    pub line: usize,
    pub group: Option<String>,
    /// Seconds since the round began.
    pub started: f64,
    /// Until the end of the reply.
    pub seconds: f64,
    /// Until the first piece of a stream.
    pub first: Option<f64>,
    /// 1 for the right answer, 0 for another, where the workload tells it.
    pub reward: Option<f64>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Done { tokens: u64, prompt_tokens: Option<u64>, finish: Option<String> },
    Failed { error: String },
}

impl Round {
    /// Output tokens of all rollouts.
    pub(super) fn tokens(&self) -> u64 {
        self.rollouts.iter().map(Rollout::tokens).sum()
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens() as f64 / self.seconds
    }

    /// Seconds during which only the last tenth of the rollouts, rounded up, were still running.
    pub(super) fn tail(&self) -> f64 {
        let mut ends: Vec<f64> = self.rollouts.iter().map(|rollout| rollout.started + rollout.seconds).collect();
        ends.sort_by(f64::total_cmp);
        let before = ends.len() - ends.len().div_ceil(10);
        let began = before.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(0.0);
        ends.last().map_or(0.0, |end| end - began)
    }
}

impl Rollout {
    pub(super) fn tokens(&self) -> u64 {
        match self.outcome {
            Outcome::Done { tokens, .. } => tokens,
            Outcome::Failed { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    #[test]
    fn the_tail_is_the_time_of_the_last_tenth() {
        // They end after 1, 2, … 20 seconds.
        let round = fixture::round(&[(1, 1.0); 20]);
        assert_eq!(round.tail(), 2.0);
        assert_eq!(fixture::round(&[(1, 1.0); 3]).tail(), 1.0);
        assert_eq!(fixture::round(&[(1, 4.0)]).tail(), 4.0);
        assert_eq!(fixture::round(&[]).tail(), 0.0);
    }
}
