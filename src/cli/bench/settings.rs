//! Settings of `sidedraft bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// What every comparison of a server with the sidecar in front of it is told.
#[derive(Debug, Clone, Args)]
pub(super) struct Ends {
    /// The server itself. With one of the two URLs only, plain numbers are measured and no ratio
    #[arg(long, value_name = "URL", value_parser = url)]
    pub direct: Option<String>,

    /// The sidecar in front of it
    #[arg(long, value_name = "URL", value_parser = url, required_unless_present = "direct")]
    pub proxy: Option<String>,

    /// A file of rollouts: a JSON object a line, with `messages` or `prompt`, and `group`, `n`, `max_tokens` and
    /// `temperature` if they matter. Can be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub workload: Vec<PathBuf>,

    /// The longest rollout, instead of the workload's own `max_tokens`
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_tokens: Option<u64>,

    /// Ask for streams. Without it each reply comes whole, as trainers ask for it
    #[arg(long)]
    pub stream: bool,

    /// Ask for log-probabilities, as trainers do
    #[arg(long)]
    pub logprobs: bool,

    /// Rollouts that go to each URL before each measurement and are not counted
    #[arg(long, value_name = "N", default_value = "1")]
    pub warmup: usize,

    /// The model, where the servers offer several
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// API key for both URLs
    #[arg(long, env = "SIDEDRAFT_UPSTREAM_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,

    /// Seconds after which a rollout has failed
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: u64,

    /// Write everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a page with plots that needs no other file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Settings of the comparison rollout by rollout.
#[derive(Debug, Clone, Args)]
pub(super) struct CompareSettings {
    #[command(flatten)]
    pub ends: Ends,

    /// Rollouts that run at a time, one measurement for each number of the list
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4,16,32")]
    pub concurrency: Vec<NonZeroUsize>,

    /// Pairs of rounds. Within a pair one round goes to each URL, in an order that alternates
    #[arg(long, value_name = "N", default_value = "5")]
    pub rounds: NonZeroUsize,

    /// Rollouts of a round [default: twice the concurrency, and 8 at least]
    #[arg(long, value_name = "N", conflicts_with = "together")]
    pub requests: Option<NonZeroUsize>,

    /// Temperatures, one measurement for each number of the list [default: the workload's own]
    #[arg(long, alias = "temperature", value_name = "LIST", value_delimiter = ',', value_parser = temperature)]
    pub temperatures: Vec<f64>,

    /// Start all rollouts of a round at once, as many as the concurrency says, and compare the time until the last one
    /// ends
    #[arg(long, alias = "batch")]
    pub together: bool,

    /// Send no `cache_salt`. With one for each round and URL, none finds another's tokens in the prefix cache
    #[arg(long)]
    pub no_cache_salt: bool,
}

impl CompareSettings {
    /// The rollouts of a round.
    pub(super) fn rollouts(&self, concurrency: usize) -> usize {
        match self.requests {
            _ if self.together => concurrency,
            Some(requests) => requests.get(),
            None => (2 * concurrency).max(8),
        }
    }

    /// What temperatures to measure at; none for the workload's own.
    pub(super) fn temperatures(&self) -> Vec<Option<f64>> {
        if self.temperatures.is_empty() { vec![None] } else { self.temperatures.iter().copied().map(Some).collect() }
    }
}

fn url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err("must be an http or https URL without a query".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(super) fn temperature(text: &str) -> Result<f64, String> {
    let temperature: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if temperature.is_finite() && temperature >= 0.0 { Ok(temperature) } else { Err("must not be negative".to_owned()) }
}
