//! What the server tells about one position: log-probabilities of some tokens under its raw distribution.

use super::TokenId;

/// A token and its natural log-probability at temperature 1, before penalties, bias and truncation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The token.
    pub token: TokenId,
    /// Its raw log-probability.
    pub logprob: f64,
}

/// The server's raw distribution at one position, as far as it was told: the N most likely tokens, and
/// possibly one more (the draft) from anywhere below them.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Most likely first, equal log-probabilities by ascending id; then what was learnt later. Distinct ids.
    entries: Vec<Entry>,
    /// How many of the first entries are the most likely tokens of the whole vocabulary.
    top: usize,
    /// A token from below the top, and how many tokens are at least as likely, itself included.
    rank: Option<(TokenId, u32)>,
    /// Whether it tells of every id that the draft's own distribution lists.
    tells_all_listed: bool,
}

impl Row {
    /// A row from entries in any order, of which the `top_n` most likely were asked for.
    ///
    /// Returns `None` for a row that cannot be one: no entries, a repeated id, a value that is not a
    /// log-probability, or more than the whole probability mass (the mark of uninitialised memory and of
    /// servers that report logits).
    #[must_use]
    pub fn new(mut entries: Vec<Entry>, top_n: usize) -> Option<Self> {
        const ROUNDING: f64 = 1e-3;
        entries.sort_by(|a, b| b.logprob.total_cmp(&a.logprob).then(a.token.cmp(&b.token)));
        let mass: f64 = entries.iter().map(|entry| entry.logprob.exp()).sum();
        let sound = entries.iter().all(|entry| !entry.logprob.is_nan() && entry.logprob <= ROUNDING);
        if entries.is_empty() || !sound || mass > 1.0 + ROUNDING {
            return None;
        }
        let mut ids: Vec<_> = entries.iter().map(|entry| entry.token).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let top = top_n.min(entries.len());
        Some(Self { entries, top, rank: None, tells_all_listed: false })
    }

    /// The same row, which also tells how many tokens are at least as likely as `token`, itself included.
    #[must_use]
    pub fn with_rank(self, token: TokenId, rank: u32) -> Self {
        Self { rank: Some((token, rank)), ..self }
    }

    /// The same row, which also tells of `others`, ids from anywhere: with them, all that the draft's own distribution lists
    /// are told. `None` where that is too much mass to be a row's.
    #[must_use]
    pub fn with_all_listed(self, others: impl IntoIterator<Item = Entry>) -> Option<Self> {
        let Self { mut entries, top, rank, .. } = self;
        for other in others {
            if entries.iter().all(|entry| entry.token != other.token) {
                entries.push(other);
            }
        }
        Some(Self { rank, tells_all_listed: true, ..Self::new(entries, top)? })
    }

    /// Whether it tells of every id that the draft's own distribution lists, by the server's promise.
    #[must_use]
    pub fn tells_all_listed(&self) -> bool {
        self.tells_all_listed
    }

    /// `token` as it is to be reported, if the row tells its log-probability.
    #[must_use]
    pub fn scored(&self, token: TokenId) -> Option<Scored> {
        self.clone().into_scored(token).ok()
    }

    /// The same of a row that is needed for nothing else: its list becomes the token's.
    ///
    /// # Errors
    /// The row itself, if it does not tell of `token`.
    pub fn into_scored(self, token: TokenId) -> Result<Scored, Self> {
        let Some(logprob) = self.logprob(token) else { return Err(self) };
        let listed = self.top().iter().position(|entry| entry.token == token).map(|at| at as u32 + 1);
        let rank = listed.or(self.rank.filter(|(id, _)| *id == token).map(|(_, rank)| rank));
        let mut top = self.entries;
        top.truncate(self.top);
        Ok(Scored { token, logprob, rank, top })
    }

    /// Every known token: most likely first, then what was learnt later.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The most likely tokens of the whole vocabulary, in order: no token outside is likelier than the last one.
    #[must_use]
    pub fn top(&self) -> &[Entry] {
        &self.entries[..self.top]
    }

    /// The raw log-probability of `token`, if the row tells it.
    #[must_use]
    pub fn logprob(&self, token: TokenId) -> Option<f64> {
        self.entries.iter().find(|entry| entry.token == token).map(|entry| entry.logprob)
    }

    /// Adds a token from outside, whose log-probability became known. The top stays what it is.
    pub fn learn(&mut self, scored: &Scored) {
        if self.logprob(scored.token).is_none() {
            self.entries.push(Entry { token: scored.token, logprob: scored.logprob });
        }
    }

    /// The probability that the row does not account for.
    #[must_use]
    pub fn tail(&self) -> f64 {
        let listed: f64 = self.entries.iter().map(|entry| entry.logprob.exp()).sum();
        (1.0 - listed).max(0.0)
    }
}

/// A token with what the server said of it: what gets committed and reported to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: TokenId,
    /// Its log-probability as the server reports it.
    pub logprob: f64,
    /// Its place among the most likely tokens, from 1; below those that were listed, how many tokens are at least as
    /// likely, itself included. Absent where the server does not tell.
    pub rank: Option<u32>,
    /// The most likely tokens at its position, most likely first; as many as were asked for, or more.
    pub top: Vec<Entry>,
}

/// What verification learnt about the position of one draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The raw distribution, the draft's own log-probability included.
    Row(Row),
    /// The server itself drew this token there, under the client's own sampling parameters.
    Sampled(Scored),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: TokenId, probability: f64) -> Entry {
        Entry { token, logprob: probability.ln() }
    }

    #[test]
    fn a_draft_below_the_top_is_known_but_not_part_of_the_top() {
        let row = Row::new(vec![entry(9, 0.01), entry(3, 0.5), entry(4, 0.3)], 2).unwrap();
        assert_eq!(row.top().iter().map(|e| e.token).collect::<Vec<_>>(), [3, 4]);
        assert!((row.logprob(9).unwrap() - 0.01_f64.ln()).abs() < 1e-12);
        assert!((row.tail() - 0.19).abs() < 1e-12);
    }

    #[test]
    fn ties_are_ordered_by_id() {
        let row = Row::new(vec![entry(7, 0.25), entry(2, 0.25), entry(5, 0.25)], 3).unwrap();
        assert_eq!(row.top().iter().map(|e| e.token).collect::<Vec<_>>(), [2, 5, 7]);
    }

    #[test]
    fn given_ids_are_known_and_the_top_stays_the_likeliest() {
        let row = Row::new(vec![entry(3, 0.5), entry(4, 0.3), entry(9, 0.01)], 2).unwrap().with_rank(9, 7);
        let row = row.with_all_listed([entry(4, 0.3), entry(6, 0.1), entry(7, 0.0)]).unwrap();
        assert_eq!(row.top().iter().map(|e| e.token).collect::<Vec<_>>(), [3, 4]);
        assert!(row.tells_all_listed() && (row.tail() - 0.09).abs() < 1e-12);
        assert_eq!((row.logprob(7), row.scored(9).unwrap().rank), (Some(f64::NEG_INFINITY), Some(7)));
        let row = Row::new(vec![entry(3, 0.5)], 1).unwrap();
        assert_eq!(row.with_all_listed([entry(4, 0.6)]), None);
    }

    #[test]
    fn memory_that_is_not_a_distribution_is_refused() {
        let zeros = vec![Entry { token: 0, logprob: 0.0 }, Entry { token: 1, logprob: 0.0 }];
        assert_eq!(Row::new(zeros, 2), None, "two certainties");
        assert_eq!(Row::new(vec![Entry { token: 0, logprob: 3.5 }], 1), None, "a logit");
        assert_eq!(Row::new(vec![Entry { token: 0, logprob: f64::NAN }], 1), None);
        assert_eq!(Row::new(vec![entry(0, 0.1), entry(0, 0.1)], 2), None, "the same id twice");
        assert_eq!(Row::new(Vec::new(), 0), None);
    }
}
