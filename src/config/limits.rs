//! What clients may take of the sidecar.

use std::time::Duration;

use clap::Args;

use super::{positive, seconds};
use crate::api::Limits;

/// Settings of what clients may take.
#[derive(Debug, Clone, Args)]
pub struct LimitSettings {
    /// Most bytes of a request's line and headers. One with more is answered with 431
    #[arg(long, env = "SIDEDRAFT_MAX_HEADER_BYTES", default_value_t = 256 << 10, value_parser = positive,
          value_name = "BYTES")]
    pub max_header_bytes: usize,

    /// Most bytes of a request's body. One with more is answered with 413
    #[arg(long, env = "SIDEDRAFT_MAX_BODY_BYTES", default_value_t = 1 << 30, value_name = "BYTES")]
    pub max_body_bytes: u64,

    /// Requests with longer bodies are forwarded unread
    #[arg(long, env = "SIDEDRAFT_MAX_PARSED_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_parsed_bytes: usize,

    /// Most connections of clients. Requests over others are answered with 503, those about the sidecar's health excepted
    #[arg(long, env = "SIDEDRAFT_MAX_CONNECTIONS", default_value_t = 16384, value_parser = positive,
          value_name = "COUNT")]
    pub max_connections: usize,

    /// Most rollouts at once. Requests for more are answered with 429; one that alone asks for more is forwarded
    #[arg(long, env = "SIDEDRAFT_MAX_ROLLOUTS", default_value_t = 16384, value_parser = positive, value_name = "COUNT")]
    pub max_rollouts: usize,

    /// Seconds in which the whole head of a connection's next request must come, idle time included
    #[arg(long, env = "SIDEDRAFT_HEADER_TIMEOUT", default_value = "75", value_parser = seconds, value_name = "SECONDS")]
    pub header_timeout: Duration,

    /// Seconds that a client may let wait for more of a request's body. One that does for longer is answered with 408
    #[arg(long, env = "SIDEDRAFT_BODY_TIMEOUT", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    pub body_timeout: Duration,
}

impl From<&LimitSettings> for Limits {
    fn from(settings: &LimitSettings) -> Self {
        Self {
            header_bytes: settings.max_header_bytes,
            body_bytes: settings.max_body_bytes,
            parsed_bytes: settings.max_parsed_bytes,
            connections: settings.max_connections,
            rollouts: settings.max_rollouts,
            header_timeout: settings.header_timeout,
            body_timeout: settings.body_timeout,
        }
    }
}
