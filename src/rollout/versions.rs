//! Which policy version each of a rollout's tokens was scored under.

use std::sync::Arc;

use crate::upstream::VersionSpan;

/// Versions in the order of the tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Each version with the index of its first token; neighbours differ.
    starts: Vec<(Arc<str>, usize)>,
}

impl Versions {
    /// Stamps the tokens from index `at` on.
    pub fn stamp(&mut self, at: usize, version: &Arc<str>) {
        self.starts.truncate(self.starts.partition_point(|(_, start)| *start < at));
        if self.starts.last().is_none_or(|(last, _)| last != version) {
            self.starts.push((Arc::clone(version), at));
        }
    }

    /// Whether tokens were scored under `version` before others were under a later one, so that what is scored under it
    /// now has come too late.
    #[must_use]
    pub fn has_left(&self, version: &str) -> bool {
        self.starts.split_last().is_some_and(|((last, _), earlier)| {
            **last != *version && earlier.iter().any(|(other, _)| **other == *version)
        })
    }

    /// The version that scored the token at `index`, or will if nothing changes; absent before anything was stamped.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Arc<str>> {
        let after = self.starts.partition_point(|(_, start)| *start <= index);
        after.checked_sub(1).map(|at| &self.starts[at].0)
    }

    /// The index of the first token after `index` that another version scored.
    #[must_use]
    pub fn next_after(&self, index: usize) -> Option<usize> {
        self.starts.iter().map(|(_, start)| *start).find(|start| *start > index)
    }

    /// The spans of a rollout of `length` tokens.
    #[must_use]
    pub fn spans(&self, length: usize) -> Vec<VersionSpan> {
        let ends = self.starts.iter().skip(1).map(|(_, start)| *start).chain([length]);
        let spans = self.starts.iter().zip(ends).filter(|((_, start), end)| start < end);
        spans.map(|((version, start), end)| VersionSpan { version: version.to_string(), start: *start, end }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(stamps: &[(usize, &str)]) -> Versions {
        let mut versions = Versions::default();
        for (at, version) in stamps {
            versions.stamp(*at, &Arc::from(*version));
        }
        versions
    }

    fn spans(versions: &Versions, length: usize) -> Vec<(String, usize, usize)> {
        versions.spans(length).into_iter().map(|span| (span.version, span.start, span.end)).collect()
    }

    #[test]
    fn neighbours_of_one_version_are_one_span() {
        let versions = versions(&[(0, "1"), (3, "1"), (5, "2")]);
        assert_eq!(spans(&versions, 9), [("1".to_owned(), 0, 5), ("2".to_owned(), 5, 9)]);
        assert_eq!(spans(&versions, 5), [("1".to_owned(), 0, 5)], "no token yet under the second");
    }

    #[test]
    fn each_token_has_a_version() {
        let versions = versions(&[(0, "1"), (5, "2")]);
        let told = [0, 4, 5, 9].map(|index| (versions.at(index).map(|version| &**version), versions.next_after(index)));
        assert_eq!(told, [(Some("1"), Some(5)), (Some("1"), Some(5)), (Some("2"), None), (Some("2"), None)]);
        assert_eq!(Versions::default().at(0), None);
    }

    #[test]
    fn later_knowledge_replaces_the_stamp() {
        let versions = versions(&[(0, "1"), (5, "1"), (4, "2")]);
        assert_eq!(spans(&versions, 6), [("1".to_owned(), 0, 4), ("2".to_owned(), 4, 6)]);
    }

    #[test]
    fn only_a_version_with_a_successor_was_left() {
        let versions = versions(&[(0, "1"), (5, "2")]);
        assert!(versions.has_left("1"));
        assert!(!versions.has_left("2") && !versions.has_left("3"));
    }
}
