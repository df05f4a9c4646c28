//! What a GPU server's work takes, as arithmetic: nothing here knows a clock.

use std::time::Duration;

/// What a server takes for its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostModel {
    /// Of each step of the engine, whatever is in it: reading the weights.
    pub step: Duration,
    /// Of each sequence that gets a token in a step: the computation of its newest token.
    pub sequence: Duration,
    /// Of each other token that a step computes: those of a prompt that the prefix cache did not serve, but for the last,
    /// which is its sequence's newest.
    pub prefilled_token: Duration,
    /// `--max-num-batched-tokens`: what one step computes at most.
    pub max_batched_tokens: usize,
    /// `--max-num-seqs`.
    pub max_sequences: usize,
    /// Threads of the API server.
    pub api_threads: usize,
    /// What a request takes of one of them, before the engine sees it.
    pub request: Duration,
    /// What a chunk of a stream takes of one of them, before it is sent.
    pub chunk: Duration,
}

/// What a draft model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftCost {
    /// Of a step that gives one rollout a token.
    pub token: Duration,
    /// Of every other rollout that gets one in the same step.
    pub extra_row: Duration,
    /// Of a token of context that is read in the same step.
    pub read: Duration,
}

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepLoad {
    /// Sequences that get a token.
    pub sampled: usize,
    /// All other tokens.
    pub prefilled: usize,
}

impl CostModel {
    /// An 8B model in bf16 on an H100, behind vLLM's Python API server.
    #[must_use]
    pub fn h100_8b() -> Self {
        Self {
            step: Duration::from_micros(6_200),
            sequence: Duration::from_micros(30),
            prefilled_token: Duration::from_micros(40),
            max_batched_tokens: 8192,
            max_sequences: 1024,
            api_threads: 4,
            request: Duration::from_micros(1_200),
            chunk: Duration::from_micros(50),
        }
    }

    /// How long a step takes.
    #[must_use]
    pub fn step(&self, load: StepLoad) -> Duration {
        self.step + self.sequence * count(load.sampled) + self.prefilled_token * count(load.prefilled)
    }

    /// How long one request of `tokens` tokens takes that has the server for itself, not streamed: `uncached` tokens of
    /// its prompt are computed in its first step.
    #[must_use]
    pub fn alone(&self, uncached: usize, tokens: usize) -> Duration {
        let first = self.step(StepLoad { sampled: 1, prefilled: uncached - 1 });
        let other = self.step(StepLoad { sampled: 1, prefilled: 0 });
        self.request + first + other * count(tokens - 1)
    }
}

impl DraftCost {
    /// The draft model of [`CostModel::h100_8b`], which reads contexts in no time.
    #[must_use]
    pub fn h100_8b() -> Self {
        let read = Duration::ZERO;
        Self { token: Duration::from_micros(600), extra_row: Duration::from_micros(20), read }
    }

    /// How long a step takes that gives each of `rows` rollouts a token and reads `unread` tokens of their contexts.
    #[must_use]
    pub fn step(&self, rows: usize, unread: usize) -> Duration {
        self.token + self.extra_row * count(rows.saturating_sub(1)) + self.read * count(unread)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}
