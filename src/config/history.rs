//! What is remembered of rollouts, and which drafters use it.

use clap::Args;

/// Settings of the history.
#[derive(Debug, Clone, Args)]
pub struct HistorySettings {
    /// Draft also from what other rollouts of the same prompt said: those that run and those of earlier epochs
    #[arg(long, env = "SIDEDRAFT_SUFFIX")]
    pub suffix: bool,

    /// Propose rollouts of an earlier policy version whole to new ones of the same prompt
    #[arg(long, env = "SIDEDRAFT_REPLAY")]
    pub replay: bool,

    /// Bytes for rollouts and their index, which --suffix and --replay draft from; 0 keeps nothing. The prompts that had no
    /// new rollout for longest leave first
    #[arg(long, env = "SIDEDRAFT_HISTORY_BYTES", default_value_t = 256 << 20, value_name = "BYTES")]
    pub history_bytes: usize,

    /// With --replay: how many of the likeliest tokens to ask the server for with each token, of which those that matter
    /// are kept. Without them an old rollout is accepted less often
    #[arg(long, env = "SIDEDRAFT_HISTORY_ROWS", default_value_t = 8, value_name = "COUNT")]
    pub history_rows: usize,

    /// With --replay: most tokens of an old rollout that the server scores in a round
    #[arg(long, env = "SIDEDRAFT_LONGEST_REPLAY", default_value_t = 512, value_parser = super::positive, value_name = "TOKENS")]
    pub longest_replay: usize,
}

impl HistorySettings {
    /// Whether anything is remembered.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.history_bytes > 0 && (self.suffix || self.replay)
    }
}
