//! Which rows of a reply describe what was asked, and which were never computed.

use crate::speculation::{Entry, Observation, Row, TokenId};
use crate::upstream::{Candidate, GenerateReply, Runner};

/// The row of prompt token `index` in the reply to a prompt of `length` tokens, or `None` if the server never
/// computed it or it cannot be told.
///
/// The row of token i needs the hidden state at i − 1, so with c tokens served by the prefix cache the first row that
/// exists is that of token c + 1.
#[must_use]
pub fn computed_row(reply: &GenerateReply, runner: Runner, length: usize, index: usize) -> Option<&[Candidate]> {
    let from_end = length.checked_sub(index)?;
    let position = reply.prompt_rows.len().checked_sub(from_end)?;
    let full_length = reply.prompt_rows.len() == length;
    let computed = match (reply.cached_tokens, runner) {
        // A shorter list holds only what was computed, whatever the runner.
        _ if !full_length => true,
        (Some(cached), _) => index > cached,
        (None, Runner::V2) => true,
        (None, _) => false,
    };
    if !computed {
        return None;
    }
    reply.prompt_rows.get(position)?.as_deref()
}

/// The observation of `draft` that `candidates` amount to, if they are a distribution and tell of the draft.
#[must_use]
pub fn observation(candidates: &[Candidate], row_length: usize, draft: TokenId) -> Option<Observation> {
    let entries = candidates.iter().map(|c| Entry { token: c.token, logprob: c.logprob }).collect();
    let row = Row::new(entries, row_length)?;
    row.logprob(draft)?;
    Some(Observation::Row(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Sampled;

    fn reply(rows: Vec<Option<f64>>, cached_tokens: Option<usize>) -> GenerateReply {
        let row = |logprob: Option<f64>| logprob.map(|logprob| vec![Candidate { token: 1, logprob }]);
        GenerateReply {
            prompt_rows: rows.into_iter().map(row).collect(),
            sampled: Sampled { token: 0, logprob: 0.0, candidates: Vec::new() },
            cached_tokens,
        }
    }

    fn value(reply: &GenerateReply, runner: Runner, length: usize, index: usize) -> Option<f64> {
        computed_row(reply, runner, length, index).map(|row| row[0].logprob)
    }

    #[test]
    fn a_short_list_is_aligned_at_its_end() {
        let reply = reply(vec![Some(-3.0), Some(-4.0)], None);
        assert_eq!(value(&reply, Runner::V2, 5, 4), Some(-4.0));
        assert_eq!(value(&reply, Runner::V2, 5, 3), Some(-3.0));
        assert_eq!(value(&reply, Runner::V2, 5, 2), None);
    }

    #[test]
    fn uninitialised_rows_of_a_full_list_are_not_taken() {
        let list = vec![None, Some(0.0), Some(0.0), Some(-3.0), Some(-4.0)];
        let known = reply(list.clone(), Some(2));
        assert_eq!(value(&known, Runner::V1, 5, 2), None, "needs the hidden state of cached token 1");
        assert_eq!(value(&known, Runner::V1, 5, 3), Some(-3.0));
        let untold = reply(list, None);
        assert_eq!(value(&untold, Runner::V1, 5, 4), None, "nothing says what was cached");
        assert_eq!(value(&untold, Runner::Unknown, 5, 4), None);
    }

    #[test]
    fn a_short_list_with_a_blank_first_row_is_blank_there() {
        let reply = reply(vec![None, Some(-4.0)], None);
        assert_eq!(value(&reply, Runner::V2, 4, 3), Some(-4.0));
        assert_eq!(value(&reply, Runner::V2, 4, 2), None);
    }

    #[test]
    fn a_row_must_tell_of_the_draft() {
        let candidates = [Candidate { token: 1, logprob: -1.0 }];
        assert!(observation(&candidates, 1, 1).is_some());
        assert!(observation(&candidates, 1, 2).is_none());
    }
}
