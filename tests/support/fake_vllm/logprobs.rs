//! Rows of log-probabilities, as the engine hands them to the API server.

use super::config::LogprobsMode;
use super::distribution::{Processed, log_softmax};
use super::ordered::{Json, obj};

/// One token of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The token.
    pub id: u32,
    /// Its score in the server's logprobs mode; NaN in rows of uninitialised memory.
    pub logprob: f64,
    /// 1 for the highest.
    pub rank: usize,
}

/// One position: the token that stands there first, then the highest.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Vec<Entry>);

/// What the logprobs of a sampled token are taken from.
#[must_use]
pub fn sample_scores(mode: LogprobsMode, raw: &[f64], processed: &Processed) -> Vec<f64> {
    match mode {
        LogprobsMode::RawLogprobs => log_softmax(raw),
        LogprobsMode::RawLogits => raw.to_vec(),
        LogprobsMode::ProcessedLogprobs => log_softmax(&processed.reported),
        LogprobsMode::ProcessedLogits => processed.reported.clone(),
    }
}

/// What the logprobs of a prompt token are taken from: no mode applies sampling parameters to a prompt.
#[must_use]
pub fn prompt_scores(mode: LogprobsMode, raw: &[f64]) -> Vec<f64> {
    match mode {
        LogprobsMode::RawLogprobs | LogprobsMode::ProcessedLogprobs => log_softmax(raw),
        LogprobsMode::RawLogits | LogprobsMode::ProcessedLogits => raw.to_vec(),
    }
}

impl Row {
    /// The row of `id` with the `count` highest of `scores` (−1 for all).
    ///
    /// A top id's rank is its place in the list; a token below the top has the number of tokens that score at least as
    /// high. Among equals the higher id is listed first: `torch.topk` promises no order, and argmax takes the lower.
    #[must_use]
    pub fn of(scores: &[f64], id: u32, count: i64) -> Self {
        let count = usize::try_from(count).unwrap_or(scores.len());
        let mut order: Vec<u32> = (0u32..).take(scores.len()).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(b.cmp(&a)));
        order.truncate(count);

        let score = scores[id as usize];
        let at_least = scores.iter().filter(|&&other| other >= score).count();
        let rank = order.iter().position(|&top| top == id).map_or(at_least, |place| place + 1);
        let entry = |id: u32, rank| Entry { id, logprob: f64::from(scores[id as usize] as f32), rank };
        let rest = order.iter().enumerate().filter(|&(_, &top)| top != id).map(|(place, &top)| entry(top, place + 1));
        Self(std::iter::once(entry(id, rank)).chain(rest).collect())
    }

    /// A row of fresh memory: token 0 over and over, of which a map keeps the last.
    #[must_use]
    pub fn zeros(count: i64) -> Self {
        Self(vec![Entry { id: 0, logprob: 0.0, rank: usize::try_from(count).unwrap_or(0) }])
    }

    /// A row of memory that is not a number.
    #[must_use]
    pub fn nan(count: i64) -> Self {
        Self(vec![Entry { logprob: f64::NAN, ..Self::zeros(count).0[0] }])
    }

    /// The map from id to `{logprob, rank, decoded_token}` of `prompt_logprobs`: the prompt's own token, then the highest.
    pub fn to_map(&self, decode: impl Fn(u32) -> Option<String>) -> Json {
        Json::object(self.0.iter().map(|entry| {
            let decoded = decode(entry.id);
            let value = obj! {"logprob": floor(entry.logprob), "rank": entry.rank, "decoded_token": decoded};
            (entry.id.to_string(), value)
        }))
    }
}

/// JSON has no infinities, so vLLM's API says −9999 for minus infinity.
#[must_use]
pub fn floor(logprob: f64) -> f64 {
    logprob.max(-9999.0)
}
