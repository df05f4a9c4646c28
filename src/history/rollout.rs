//! One rollout as it is remembered: its tokens, and what each was drawn from.

use std::sync::Arc;

use super::rows::Rows;
use crate::speculation::{Draft, DraftDistribution, Sampling, Scored, TokenId, above_border};

/// Of a row at temperature 1, ids less likely than this are not kept. They come up once in ten thousand tokens and are
/// then judged with all others that no row lists.
const LEAST_LOGPROB: f64 = -4.0 * std::f64::consts::LN_10;

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// At a token or string at which to stop.
    Stop,
    /// At the most tokens allowed.
    Length,
    /// Somebody ended it.
    Abort,
}

/// A rollout's tokens with what they were drawn from.
#[derive(Debug, Clone)]
pub struct Rollout {
    tokens: Vec<TokenId>,
    rows: Rows,
    /// Each version with the index of its first token, the one it began under first; neighbours differ.
    versions: Vec<(Arc<str>, u32)>,
    sampling: Option<Sampling>,
    finish: Option<Finish>,
}

impl Rollout {
    /// A rollout that begins under `version`. `sampling` is absent where a row and sampling parameters do not tell what
    /// is sampled from: the server's defaults are unknown, or tokens are barred or biased.
    #[must_use]
    pub fn new(version: Arc<str>, sampling: Option<Sampling>) -> Self {
        Self { tokens: Vec::new(), rows: Rows::default(), versions: vec![(version, 0)], sampling, finish: None }
    }

    /// Appends tokens that were scored under `version`.
    ///
    /// Of a row, the top alone is kept, and nothing that depends on the token drawn from it: where nothing is truncated,
    /// what is likelier than its last ([`above_border`]).
    pub fn extend(&mut self, version: &Arc<str>, scored: &[Scored]) {
        if self.versions.last().is_none_or(|(last, _)| last != version) && !scored.is_empty() {
            self.versions.push((Arc::clone(version), self.tokens.len() as u32));
        }
        for Scored { token, top, .. } in scored {
            self.tokens.push(*token);
            match &self.sampling {
                None => self.rows.push([].iter()),
                Some(sampling) if sampling.is_raw() => {
                    let kept = above_border(top).iter().filter(|entry| entry.logprob >= LEAST_LOGPROB);
                    self.rows.push(kept);
                }
                Some(_) => self.rows.push(top.iter()),
            }
        }
    }

    /// Ends it, and gives back the memory that it no longer grows into.
    pub fn finish(&mut self, finish: Finish) {
        self.finish = Some(finish);
        self.tokens.shrink_to_fit();
        self.rows.shrink();
    }

    /// Its tokens so far.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// How it ended; absent while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<Finish> {
        self.finish
    }

    /// How it was sampled, if a row tells what that came to.
    #[must_use]
    pub fn sampling(&self) -> Option<&Sampling> {
        self.sampling.as_ref()
    }

    /// The version under which it began.
    #[must_use]
    pub fn begun_under(&self) -> &str {
        self.versions.first().map_or("", |(version, _)| version)
    }

    /// The version that scored the token at `index`.
    #[must_use]
    pub fn version_of(&self, index: usize) -> &str {
        let after = self.versions.partition_point(|(_, start)| *start as usize <= index);
        after.checked_sub(1).map_or("", |at| &self.versions[at].0)
    }

    /// Whether it began under `version` or was continued under it.
    #[must_use]
    pub fn ran_under(&self, version: &str) -> bool {
        self.versions.iter().any(|(other, _)| **other == *version)
    }

    /// The token at `index` as a draft, with what is known of the distribution that it was drawn from.
    #[must_use]
    pub fn draft(&self, index: usize) -> Option<Draft> {
        let token = *self.tokens.get(index)?;
        let row = self.rows.get(index);
        let q = match (row, &self.sampling) {
            (Some(row), Some(sampling)) => DraftDistribution::of_row(&row, sampling, token),
            _ => DraftDistribution::PointMass,
        };
        Some(Draft::new(token, q))
    }

    /// Each version that it ran under with the index of its first token.
    pub(super) fn versions(&self) -> &[(Arc<str>, u32)] {
        &self.versions
    }

    /// What its tokens were drawn from.
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The one that has these parts, a row for each token; `None` if they do not make one.
    pub(super) fn of_parts(
        tokens: Vec<TokenId>,
        rows: Rows,
        versions: Vec<(Arc<str>, u32)>,
        sampling: Option<Sampling>,
        finish: Finish,
    ) -> Option<Self> {
        let starts = || versions.iter().map(|(_, start)| *start as usize);
        let sound = starts().next() == Some(0) && starts().is_sorted() && starts().all(|start| start <= tokens.len());
        let mut rollout = Self { tokens, rows, versions, sampling, finish: None };
        rollout.finish(finish);
        sound.then_some(rollout)
    }

    /// The bytes that it holds, unused capacity included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<TokenId>() * self.tokens.capacity()
            + size_of::<(Arc<str>, u32)>() * self.versions.capacity()
            + self.rows.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculation::Entry;

    fn scored(token: TokenId, top: &[(TokenId, f64)]) -> Scored {
        let top: Vec<_> = top.iter().map(|(token, p)| Entry { token: *token, logprob: p.ln() }).collect();
        Scored { token, logprob: -1.0, rank: None, top }
    }

    fn rollout(sampling: Option<Sampling>, scored: &[Scored]) -> Rollout {
        let version: Arc<str> = "1".into();
        let mut rollout = Rollout::new(Arc::clone(&version), sampling);
        rollout.extend(&version, scored);
        rollout
    }

    fn ids(draft: &Draft) -> Vec<TokenId> {
        match &draft.q {
            DraftDistribution::PointMass => vec![],
            DraftDistribution::Listed(list) | DraftDistribution::Partial(list) => {
                list.iter().map(|(id, _)| *id).collect()
            }
        }
    }

    #[test]
    fn at_temperature_1_a_draft_has_the_likely_ids_above_the_last_of_the_row() {
        let raw = Sampling::new(1.0, None, 1.0, 0.0);
        let top = [(4, 0.6), (5, 0.3), (6, 0.02), (7, 0.02)];
        let rollout = rollout(raw, &[scored(9, &top), scored(4, &[(4, 0.999), (5, 2e-5), (6, 1e-5)])]);
        let first = rollout.draft(0).unwrap();
        assert!(matches!(first.q, DraftDistribution::Partial(_)));
        assert_eq!((first.token, ids(&first)), (9, vec![4, 5]));
        assert!((first.probability_of(5) - 0.3).abs() < 1e-7);
        assert_eq!(ids(&rollout.draft(1).unwrap()), [4]);
        assert_eq!(rollout.draft(2), None);
    }

    #[test]
    fn a_truncated_draft_has_the_whole_distribution_or_is_a_point_mass() {
        let top_2 = Sampling::new(0.5, Some(2), 1.0, 0.0);
        let top = [(4, 0.6), (5, 0.3), (6, 0.05)];
        let rollout = rollout(top_2, &[scored(5, &top), scored(5, &top[..2]), scored(5, &[])]);
        let first = rollout.draft(0).unwrap();
        assert!(matches!(&first.q, DraftDistribution::Listed(list) if list.len() == 2));
        assert!((first.probability_of(5) - 0.2).abs() < 1e-7, "0.3² of 0.6² + 0.3²");
        assert_eq!(rollout.draft(1), Some(Draft::certain(5)), "the row is too short to show a tie");
        assert_eq!(rollout.draft(2), Some(Draft::certain(5)));
    }

    #[test]
    fn without_parameters_there_are_point_masses() {
        let rollout = rollout(None, &[scored(4, &[(4, 0.6), (5, 0.3)])]);
        assert_eq!(rollout.draft(0), Some(Draft::certain(4)));
    }

    #[test]
    fn every_token_says_which_version_scored_it() {
        let mut rollout = rollout(None, &[scored(1, &[]), scored(2, &[])]);
        rollout.extend(&"2".into(), &[]);
        assert!(!rollout.ran_under("2"));
        rollout.extend(&"2".into(), &[scored(3, &[])]);
        assert_eq!([0, 1, 2].map(|index| rollout.version_of(index).to_owned()), ["1", "1", "2"]);
        assert!(rollout.ran_under("1") && rollout.ran_under("2") && !rollout.ran_under("3"));
        assert_eq!((rollout.begun_under(), rollout.ended()), ("1", None));
        rollout.finish(Finish::Stop);
        assert_eq!((rollout.tokens(), rollout.ended()), (&[1, 2, 3][..], Some(Finish::Stop)));
    }
}
