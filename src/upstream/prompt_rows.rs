//! What a reply says of its prompt's tokens: a list as long as the prompt, of which hardly more than the drafts matters.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{Candidate, RowMap};

/// The log-probabilities of a prompt's tokens that a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptScores {
    /// How many of the likeliest tokens to report at each position, beside the prompt's own.
    pub top: usize,
    /// What is made of them.
    pub read: PromptRead,
}

/// What is made of the log-probabilities of a prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptRead {
    /// The rows of so many of the last tokens are read; the others are counted and skipped.
    Last(usize),
    /// All of them are kept in the server's JSON.
    AsWritten,
}

impl PromptScores {
    /// The rows of the last `count` tokens, with the `top` likeliest tokens of each.
    #[must_use]
    pub fn last(count: usize, top: usize) -> Self {
        Self { top, read: PromptRead::Last(count) }
    }

    /// How many rows are to be read.
    pub(super) fn rows(&self) -> usize {
        match self.read {
            PromptRead::Last(count) => count,
            PromptRead::AsWritten => 0,
        }
    }

    /// All in the server's own words, with the `top` likeliest tokens of each.
    #[must_use]
    pub fn as_written(top: usize) -> Self {
        Self { top, read: PromptRead::AsWritten }
    }
}

/// Rows of a prompt's tokens. The list is aligned at its end: its last row is that of the last token, however many the
/// server gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptRows {
    /// How many the server gave, one for each token of the prompt or fewer.
    pub given: usize,
    /// Whether the first of them is blank: before the first token of all there is nothing to compute a row from.
    pub begins_blank: bool,
    /// The last ones of them, as many as were to be read and are there. Absent is a row that the server left out or that is
    /// none.
    pub last: Vec<Option<Vec<Candidate>>>,
}

/// What a reply says of the prompt, by what was to be made of it.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptReply {
    /// The rows.
    Rows(PromptRows),
    /// The server's JSON.
    Written(Arc<str>),
}

impl PromptReply {
    /// The rows, if they were to be read.
    #[must_use]
    pub fn rows(&self) -> Option<&PromptRows> {
        match self {
            Self::Rows(rows) => Some(rows),
            Self::Written(_) => None,
        }
    }
}

/// What a reply's field is taken for.
pub(super) trait PromptField<'a>: Deserialize<'a> {
    /// What it says, rows of the `count` last tokens.
    fn reply(self, count: usize) -> Result<PromptReply, String>;
}

/// All of it, as it was written.
impl<'a> PromptField<'a> for &'a RawValue {
    fn reply(self, _: usize) -> Result<PromptReply, String> {
        Ok(PromptReply::Written(Arc::from(self.get())))
    }
}

/// The rows as they stand in the reply. Finding where each ends is all that happens to most of them.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct RawRows<'a>(#[serde(borrow)] Vec<Option<&'a RawValue>>);

impl<'a> PromptField<'a> for RawRows<'a> {
    fn reply(self, count: usize) -> Result<PromptReply, String> {
        self.last(count).map(PromptReply::Rows)
    }
}

impl RawRows<'_> {
    fn last(&self, count: usize) -> Result<PromptRows, String> {
        let read = |row: &Option<&RawValue>| {
            let Some(row) = row else { return Ok(None) };
            serde_json::from_str::<RowMap>(row.get()).map(|map| map.0).map_err(|error| error.to_string())
        };
        let last = self.0[self.0.len().saturating_sub(count)..].iter().map(read);
        let begins_blank = self.0.first().is_some_and(Option::is_none);
        Ok(PromptRows { given: self.0.len(), begins_blank, last: last.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(text: &str, count: usize) -> PromptRows {
        serde_json::from_str::<RawRows<'_>>(text).unwrap().last(count).unwrap()
    }

    #[test]
    fn prompt_rows_keep_ids_and_values() {
        let text = r#"[null, {"5": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}, "12": {"logprob": -2.25}}]"#;
        let row = vec![
            Candidate { token: 5, logprob: -0.5, rank: Some(1) },
            Candidate { token: 12, logprob: -2.25, rank: None },
        ];
        for count in [2, 3] {
            assert_eq!(
                last(text, count),
                PromptRows { given: 2, begins_blank: true, last: vec![None, Some(row.clone())] }
            );
        }
    }

    #[test]
    fn a_row_of_uninitialised_memory_is_absent() {
        let text = r#"[{"-1801009536": {"logprob": 1e-40}}, {"7": {"logprob": null}}, {"7": {"logprob": -1.0}}]"#;
        let row = vec![Candidate { token: 7, logprob: -1.0, rank: None }];
        assert_eq!(last(text, 3).last, [None, None, Some(row)]);
    }

    #[test]
    fn rows_that_nobody_reads_are_counted_whatever_they_hold() {
        let text = r#"[null, {"7": {"logprob": -1.0, "rank": -5}}, {"a": [1, {"b": "]"}]}, {"7": {"logprob": -2.0}}]"#;
        let row = vec![Candidate { token: 7, logprob: -2.0, rank: None }];
        assert_eq!(last(text, 1), PromptRows { given: 4, begins_blank: true, last: vec![Some(row)] });
        assert_eq!(last(text, 0), PromptRows { given: 4, begins_blank: true, last: Vec::new() });
        assert!(serde_json::from_str::<RawRows<'_>>(text).unwrap().last(4).is_err());
    }

    /// Prints what reading a reply takes. Run it with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stdout)]
    fn time_of_reading_eight_rows_after_16k_others() {
        const TIMES: u32 = 100;
        let row = |at: usize| {
            let entry =
                |top: usize| format!(r#""{}":{{"logprob":-{top}.25,"rank":{top},"decoded_token":null}}"#, at + top);
            format!("{{{}}}", (1..=20).map(entry).collect::<Vec<_>>().join(","))
        };
        let list = |first: &dyn Fn(usize) -> String| {
            let rows: Vec<String> = (0..16_384).map(first).chain((0..8).map(row)).collect();
            format!("[{}]", rows.join(","))
        };
        for (what, text) in [("null", list(&|_| "null".to_owned())), ("rows of 20", list(&row))] {
            let time = |how: &str, read: &dyn Fn() -> usize| {
                let started = std::time::Instant::now();
                let rows: usize = (0..TIMES).map(|_| std::hint::black_box(read())).sum();
                println!("{what}, {how}: {:?} for {} rows", started.elapsed() / TIMES, rows / TIMES as usize);
            };
            time("all read and kept as text", &|| {
                let raw: Box<RawValue> = serde_json::from_slice(text.as_bytes()).unwrap();
                let rows: Vec<Option<RowMap>> = serde_json::from_str(raw.get()).unwrap();
                let kept: Arc<str> = Arc::from(raw.get());
                std::hint::black_box(kept);
                rows.len()
            });
            time("the last eight", &|| {
                let raw: RawRows<'_> = serde_json::from_slice(text.as_bytes()).unwrap();
                raw.last(8).unwrap().given
            });
        }
    }
}
