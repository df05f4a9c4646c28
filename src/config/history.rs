//! What is remembered of rollouts, who shares it, and which drafters use it.

use std::time::Duration;

use clap::Args;

use crate::history::shared::SharedOptions;
use crate::secret::Secret;

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

    /// A Redis server through which sidecars share what they remember: `redis://user:password@host:port/database`,
    /// rediss:// for TLS, unix:/path. Better given by the environment, since it may hold a password
    #[arg(long, env = "SIDEDRAFT_HISTORY_REDIS", hide_env_values = true, value_name = "URL")]
    pub history_redis: Option<Secret>,

    /// What all keys in Redis begin with. Sidecars share with those of the same, which must serve the same models by the
    /// same names
    #[arg(long, env = "SIDEDRAFT_HISTORY_REDIS_PREFIX", default_value = "sidedraft", value_name = "TEXT")]
    pub history_redis_prefix: String,

    /// Milliseconds that rollouts about to begin wait for old ones from Redis at most. After it was too slow nobody waits
    /// until it answers within that time
    #[arg(long, env = "SIDEDRAFT_HISTORY_REDIS_PATIENCE", default_value_t = 2, value_name = "MILLISECONDS")]
    pub history_redis_patience: u64,

    /// Seconds that Redis keeps a prompt after its last rollout, which must not take longer than that
    #[arg(long, env = "SIDEDRAFT_HISTORY_REDIS_TTL", default_value = "86400", value_parser = super::seconds,
          value_name = "SECONDS")]
    pub history_redis_ttl: Duration,
}

impl HistorySettings {
    /// Whether anything is remembered.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.history_bytes > 0 && (self.suffix || self.replay)
    }

    /// How it is shared, if it is.
    #[must_use]
    pub fn shared(&self) -> Option<SharedOptions> {
        Some(SharedOptions {
            url: self.history_redis.clone()?,
            prefix: self.history_redis_prefix.clone(),
            ttl: self.history_redis_ttl,
            patience: Duration::from_millis(self.history_redis_patience),
            replays: self.replay,
            texts: self.suffix,
        })
    }

    /// What is wrong with it, in one line.
    ///
    /// # Errors
    /// The line.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(shared) = self.shared() else { return Ok(()) };
        if !self.is_on() {
            return Err("--history-redis needs --suffix or --replay, and --history-bytes above 0".to_owned());
        }
        if self.history_redis_ttl < Duration::from_secs(1) {
            return Err("--history-redis-ttl must be at least 1".to_owned());
        }
        shared.check().map_err(|error| format!("--history-redis: {error}"))
    }
}
