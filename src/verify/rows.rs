//! Which rows of a reply describe what was asked, and which were never computed.

use crate::speculation::{Entry, Observation, Row, TokenId};
use crate::upstream::{Candidate, PromptRows, Runner};

/// Rows of prompt log-probabilities, and what it takes to tell what they are.
#[derive(Debug, Clone, Copy)]
pub struct Aligned<'a> {
    /// The last ones of those for all prompt tokens, or of those for the last tokens.
    pub rows: &'a PromptRows,
    /// How many prompt tokens the prefix cache served; absent unless the server reports it.
    pub cached_tokens: Option<usize>,
    /// How they come.
    pub runner: Runner,
}

impl Aligned<'_> {
    /// Whether there are as many rows as there must be for a prompt of `length` tokens: with one too many or too few, each
    /// would be taken for its neighbour's.
    fn are_all_there(&self, length: usize) -> bool {
        let PromptRows { given, begins_blank, .. } = *self.rows;
        if given >= length {
            return given == length;
        }
        // The first token has no row, and those that the cache served have none here.
        let computed = given - usize::from(begins_blank);
        self.cached_tokens.is_none_or(|cached| computed + 1 == length.saturating_sub(cached))
    }
}

/// The row of prompt token `index` among those of a prompt of `length` tokens, or `None` if the server never
/// computed it or it cannot be told.
///
/// The row of token i needs the hidden state at i − 1, so with c tokens served by the prefix cache the first row that
/// exists is that of token c + 1.
#[must_use]
pub fn computed_row(reply: Aligned<'_>, length: usize, index: usize) -> Option<&[Candidate]> {
    let from_end = length.checked_sub(index)?;
    let position = reply.rows.last.len().checked_sub(from_end)?;
    let full_length = reply.rows.given == length;
    let computed = match (reply.cached_tokens, reply.runner) {
        // A shorter list holds only what was computed, whatever the runner.
        _ if !full_length => true,
        (Some(cached), _) => index > cached,
        (None, Runner::V2) => true,
        (None, _) => false,
    };
    if !computed || !reply.are_all_there(length) {
        return None;
    }
    reply.rows.last.get(position)?.as_deref()
}

/// The observation of `draft` that `candidates` amount to, if they are a distribution and tell of the draft. Of a draft
/// whose listed ids were scored, too, `listed` has them with their scores.
#[must_use]
pub fn observation(
    candidates: &[Candidate],
    row_length: usize,
    draft: TokenId,
    listed: Option<(&[TokenId], &[f32])>,
) -> Option<Observation> {
    let entries = candidates.iter().map(|c| Entry { token: c.token, logprob: c.logprob }).collect();
    let row = Row::new(entries, row_length)?;
    row.logprob(draft)?;
    let row = match listed {
        Some((ids, scores)) => {
            let scored = ids.iter().zip(scores);
            row.with_all_listed(scored.map(|(token, score)| Entry { token: *token, logprob: f64::from(*score) }))?
        }
        None => row,
    };
    let rank = candidates.iter().find(|candidate| candidate.token == draft).and_then(|candidate| candidate.rank);
    Some(Observation::Row(match rank {
        Some(rank) => row.with_rank(draft, rank),
        None => row,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[Option<f64>], read: usize) -> PromptRows {
        let row = |logprob: &Option<f64>| logprob.map(|logprob| vec![Candidate { token: 1, logprob, rank: None }]);
        let last = list[list.len().saturating_sub(read)..].iter().map(row).collect();
        PromptRows { given: list.len(), begins_blank: list.first().is_some_and(Option::is_none), last }
    }

    fn value(
        list: &[Option<f64>],
        cached_tokens: Option<usize>,
        runner: Runner,
        length: usize,
        index: usize,
    ) -> Option<f64> {
        let of = |read| {
            let rows = rows(list, read);
            computed_row(Aligned { rows: &rows, cached_tokens, runner }, length, index).map(|row| row[0].logprob)
        };
        assert_eq!(of(length - index), of(length), "rows that were not read make no difference");
        of(length)
    }

    #[test]
    fn a_short_list_is_aligned_at_its_end() {
        let list = [Some(-3.0), Some(-4.0)];
        assert_eq!(value(&list, None, Runner::V2, 5, 4), Some(-4.0));
        assert_eq!(value(&list, None, Runner::V2, 5, 3), Some(-3.0));
        assert_eq!(value(&list, None, Runner::V2, 5, 2), None);
    }

    #[test]
    fn uninitialised_rows_of_a_full_list_are_not_taken() {
        let list = [None, Some(0.0), Some(0.0), Some(-3.0), Some(-4.0)];
        assert_eq!(value(&list, Some(2), Runner::V1, 5, 2), None, "needs the hidden state of cached token 1");
        assert_eq!(value(&list, Some(2), Runner::V1, 5, 3), Some(-3.0));
        assert_eq!(value(&list, None, Runner::V1, 5, 4), None, "nothing says what was cached");
        assert_eq!(value(&list, None, Runner::Unknown, 5, 4), None);
    }

    #[test]
    fn a_short_list_with_a_blank_first_row_is_blank_there() {
        let list = [None, Some(-4.0)];
        assert_eq!(value(&list, None, Runner::V2, 4, 3), Some(-4.0));
        assert_eq!(value(&list, None, Runner::V2, 4, 2), None);
    }

    #[test]
    fn rows_that_are_too_many_or_too_few_are_not_taken() {
        let list = [None, Some(-1.0), Some(-2.0), Some(-3.0), Some(-4.0), Some(-5.0)];
        assert_eq!(value(&list[..5], Some(0), Runner::V2, 5, 4), Some(-4.0));
        assert_eq!(value(&list[1..5], Some(0), Runner::V2, 5, 4), Some(-4.0), "a list without the blank is one, too");
        assert_eq!(value(&list[..4], Some(0), Runner::V2, 5, 4), None, "the last is missing");
        assert_eq!(value(&list, Some(0), Runner::V2, 5, 4), None, "one came twice");
        assert_eq!(value(&list, None, Runner::V2, 5, 4), None, "that can be told without the count");
        assert_eq!(value(&list[..4], Some(4), Runner::V2, 8, 7), Some(-3.0));
        assert_eq!(value(&list[..3], Some(4), Runner::V2, 8, 7), None);
        assert_eq!(value(&list[..5], Some(4), Runner::V2, 8, 7), None);
    }

    #[test]
    fn a_row_must_tell_of_the_draft() {
        let candidates = [Candidate { token: 1, logprob: -1.0, rank: None }];
        assert!(observation(&candidates, 1, 1, None).is_some());
        assert!(observation(&candidates, 1, 2, None).is_none());
    }

    #[test]
    fn scores_of_listed_ids_are_added_to_a_row() {
        let candidates = [Candidate { token: 1, logprob: -1.0, rank: None }];
        let observed = observation(&candidates, 1, 1, Some((&[1, 5], &[-1.0001, -3.0, f32::NEG_INFINITY])));
        let Some(Observation::Row(row)) = observed else { panic!("{observed:?}") };
        assert_eq!((row.logprob(1), row.logprob(5)), (Some(-1.0), Some(-3.0)));
        assert!(row.tells_all_listed() && row.top().len() == 1);
        assert!(observation(&candidates, 1, 1, Some((&[5], &[f32::NAN]))).is_none());
    }
}
