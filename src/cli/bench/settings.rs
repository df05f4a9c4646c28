//! Settings of `sidedraft bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// Settings of the comparison between a server and the sidecar in front of it.
#[derive(Debug, Clone, Args)]
pub(super) struct CompareSettings {
    /// The server itself. With one of the two URLs only, plain numbers are measured and no ratio
    #[arg(long, value_name = "URL")]
    pub direct: Option<String>,

    /// The sidecar in front of it
    #[arg(long, value_name = "URL", required_unless_present = "direct")]
    pub proxy: Option<String>,

    /// A file of rollouts: a JSON object a line, with `messages` or `prompt`, and `group`, `n`, `max_tokens` and
    /// `temperature` if they matter. Can be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub workload: Vec<PathBuf>,

    /// Rollouts that run at a time, one measurement for each number of the list
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4,16,32")]
    pub concurrency: Vec<NonZeroUsize>,

    /// Pairs of rounds. Within a pair one round goes to each URL, in an order that alternates
    #[arg(long, value_name = "N", default_value = "5")]
    pub rounds: NonZeroUsize,

    /// Rollouts of a round [default: twice the concurrency, and 8 at least]
    #[arg(long, value_name = "N")]
    pub requests: Option<NonZeroUsize>,

    /// Temperatures, one measurement for each number of the list [default: the workload's own]
    #[arg(long, visible_alias = "temperature", value_name = "LIST", value_delimiter = ',')]
    pub temperatures: Vec<f64>,

    /// The longest rollout, instead of the workload's own `max_tokens`
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens: Option<NonZeroUsize>,

    /// Start all rollouts of a round at once, and measure the time until the last one ends
    #[arg(long, alias = "batch")]
    pub together: bool,

    /// Ask for streams. Without it each reply comes whole, as trainers ask for it
    #[arg(long)]
    pub stream: bool,

    /// Send no `cache_salt`. With one for each round and URL, none finds another's tokens in the prefix cache
    #[arg(long)]
    pub no_cache_salt: bool,

    /// The model, where the servers offer several
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Write everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with plots that needs no other file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
