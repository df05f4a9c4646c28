//! Rows of log-probabilities in columns: 8 bytes an entry and 4 a row.

use crate::speculation::{Entry, Row, TokenId};

/// The rows of a rollout's tokens. Log-probabilities are kept as the server has them, in single precision.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// Where each row's entries end.
    ends: Vec<u32>,
    ids: Vec<TokenId>,
    logprobs: Vec<f32>,
}

impl Rows {
    /// Appends a row, which may be empty.
    pub(super) fn push<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        for entry in entries {
            self.ids.push(entry.token);
            self.logprobs.push(entry.logprob as f32);
        }
        self.ends.push(self.ids.len() as u32);
    }

    /// The row at `index`, if it is there and lists anything.
    pub(super) fn get(&self, index: usize) -> Option<Row> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let columns = self.ids[start..end].iter().zip(&self.logprobs[start..end]);
        let entries = columns.map(|(token, logprob)| Entry { token: *token, logprob: f64::from(*logprob) });
        Row::new(entries.collect(), end - start)
    }

    /// The ids and log-probabilities of the row at `index`, which may be none.
    pub(super) fn columns(&self, index: usize) -> (&[TokenId], &[f32]) {
        let end = self.ends.get(index).map_or(0, |end| *end as usize);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |start| *start as usize);
        (self.ids.get(start..end).unwrap_or_default(), self.logprobs.get(start..end).unwrap_or_default())
    }

    pub(super) fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.logprobs.shrink_to_fit();
    }

    /// The bytes that it holds, unused capacity included.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.ends.capacity() + self.ids.capacity() + self.logprobs.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_single_precision_and_empty_ones_not_at_all() {
        let mut rows = Rows::default();
        let entries = [Entry { token: 7, logprob: -0.25 }, Entry { token: 151_000, logprob: f64::from(-3.1_f32) }];
        rows.push(entries.iter());
        rows.push([].iter());
        rows.push(entries[1..].iter());
        let got: Vec<_> = (0..4).map(|index| rows.get(index).map(|row| row.top().to_vec())).collect();
        assert_eq!(got, [Some(entries.to_vec()), None, Some(entries[1..].to_vec()), None]);
    }
}
