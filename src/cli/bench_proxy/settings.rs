//! Settings of `sidedraft bench proxy`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Settings of the comparison between forwarding by the sidecar, forwarding by nginx, and no proxy at all.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Settings {
    /// The nginx to compare with: a path, or a name to look for in PATH. Without one the sidecar is measured alone
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    pub nginx: PathBuf,

    /// The sidedraft to measure [default: this one]
    #[arg(long, value_name = "PATH")]
    pub sidecar: Option<PathBuf>,

    /// Processor cores that each proxy is confined to; upstream and clients share the others [default: a quarter of
    /// all, and one at least]
    #[arg(long, value_name = "N")]
    pub cores: Option<NonZeroUsize>,

    /// Rounds. In each, everything is measured directly, through nginx and through the sidecar, in an order that changes
    #[arg(long, value_name = "N", default_value = "5")]
    pub rounds: NonZeroUsize,

    /// How long requests or tokens are counted, for each number of a round
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,

    /// Requests of a round whose latency is taken, one at a time, for each way
    #[arg(long, value_name = "N", default_value = "2000")]
    pub requests: NonZeroUsize,

    /// Connections over which requests are counted
    #[arg(long, value_name = "N", default_value = "64")]
    pub connections: NonZeroUsize,

    /// Connections over which streamed tokens are counted, one measurement for each number of the list
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,64,512")]
    pub streams: Vec<NonZeroUsize>,

    /// Write everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Put the table into this file, in place of what stands between its two `bench proxy` comments
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
    } else {
        Err("too short".into())
    }
}
