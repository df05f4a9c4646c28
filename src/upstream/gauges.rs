//! What the server's own metrics say of its load.

use super::client::Upstream;
use super::error::UpstreamError;

const PATH: &str = "/metrics";

/// What is read from the server's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gauges {
    /// Requests that the server works on or that wait there, whoever sent them.
    pub requests: f64,
    /// Tokens in a block of the prefix cache, where the server tells.
    pub block_size: Option<usize>,
}

impl Upstream {
    /// Reads the server's gauges.
    ///
    /// # Errors
    /// When the server cannot be reached or its page does not say how many requests run.
    pub async fn gauges(&self) -> Result<Gauges, UpstreamError> {
        let page = self.get(PATH).await?;
        let reason = || "the page does not say how many requests run".to_owned();
        parse(&String::from_utf8_lossy(&page)).ok_or_else(|| UpstreamError::Protocol { path: PATH, reason: reason() })
    }
}

/// Reads a page in Prometheus's text format. A server of several engines has a line for each.
pub(super) fn parse(page: &str) -> Option<Gauges> {
    let mut requests = None;
    let mut block_size = None;
    for line in page.lines().filter(|line| line.starts_with("vllm:")) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        match name {
            "vllm:num_requests_running" | "vllm:num_requests_waiting" => {
                *requests.get_or_insert(0.0) += value.parse::<f64>().ok()?;
            }
            "vllm:cache_config_info" => {
                let size = labels.split_once("block_size=\"").and_then(|(_, rest)| rest.split('"').next());
                block_size = size.and_then(|size| size.parse().ok()).filter(|size| *size > 0);
            }
            _ => {}
        }
    }
    Some(Gauges { requests: requests?, block_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_and_what_waits_is_added_up_over_engines() {
        let page = "# HELP vllm:num_requests_running x\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 2.0\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1.0\n\
            vllm:num_requests_waiting_by_reason{engine=\"0\"} 9.0\n\
            vllm:cache_config_info{_block_size_resolved=\"True\",block_size=\"32\",engine=\"0\"} 1.0\n";
        let gauges = parse(page);
        assert_eq!(gauges.map(|gauges| gauges.requests), Some(6.0));
        assert_eq!(gauges.and_then(|gauges| gauges.block_size), Some(32));
    }

    #[test]
    fn a_page_that_does_not_tell_is_not_taken_for_an_idle_server() {
        assert_eq!(parse("vllm:cache_config_info{block_size=\"16\"} 1.0\n"), None);
    }
}
