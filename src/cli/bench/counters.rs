//! What the sidecar counted during a round, read from its metrics page before and after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sums by a label.
type ByLabel = BTreeMap<String, f64>;

/// Counters of interest. One that the page does not have is absent, which is not 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    /// Seconds that each drafter took.
    pub draft_seconds: Option<ByLabel>,
    /// Seconds that each way of verifying took.
    pub verify_seconds: Option<ByLabel>,
    /// Seconds that rollouts spent in decoding streams.
    pub decode_seconds: Option<f64>,
    /// Verified proposals.
    pub drafts: Option<f64>,
    pub draft_tokens: Option<f64>,
    pub accepted_tokens: Option<f64>,
    /// Accepted drafts by who made them.
    pub accepted_by_drafter: Option<ByLabel>,
    /// Accepted drafts by their position in the proposal, from 0.
    pub accepted_by_position: Option<ByLabel>,
    /// Drafts by their position in the proposal, from 0.
    pub drafted_by_position: Option<ByLabel>,
    /// Tokens decoded without a draft.
    pub decoded_tokens: Option<f64>,
    /// Tokens drawn by the server from outside the listed ids.
    pub tail_samples: Option<f64>,
}

impl Counters {
    /// Reads a page in Prometheus' text format.
    pub(super) fn read(page: &str) -> Self {
        let samples: Vec<Sample<'_>> = page.lines().filter_map(sample).collect();
        let sidecar = is_sidecar(page);
        let of = |name: &'static str| {
            // Where the server speculates too, its own counters stand beside the sidecar's and bear another engine.
            let own = move |sample: &&Sample<'_>| {
                sample.name == name && (!sidecar || sample.label("engine").is_none_or(|engine| engine == "sidedraft"))
            };
            samples.iter().filter(own)
        };
        let total = |name| of(name).map(|sample| sample.value).reduce(|a, b| a + b);
        let by = |name, label| {
            let mut sums = ByLabel::new();
            for sample in of(name) {
                *sums.entry(sample.label(label).unwrap_or_default().to_owned()).or_default() += sample.value;
            }
            (!sums.is_empty()).then_some(sums)
        };
        Self {
            draft_seconds: by("sidedraft_draft_duration_seconds_sum", "drafter"),
            verify_seconds: by("sidedraft_verify_duration_seconds_sum", "strategy"),
            decode_seconds: total("sidedraft_decode_duration_seconds_sum"),
            drafts: total("vllm:spec_decode_num_drafts_total"),
            draft_tokens: total("vllm:spec_decode_num_draft_tokens_total"),
            accepted_tokens: total("vllm:spec_decode_num_accepted_tokens_total"),
            accepted_by_drafter: by("sidedraft_accepted_tokens_total", "drafter"),
            accepted_by_position: by("vllm:spec_decode_num_accepted_tokens_per_pos_total", "position"),
            drafted_by_position: by("sidedraft_drafted_tokens_per_pos_total", "position"),
            decoded_tokens: total("sidedraft_decoded_tokens_total"),
            tail_samples: total("sidedraft_tail_samples_total"),
        }
    }

    /// What was counted since `before`. A counter that was not there then began at 0.
    ///
    /// None if one went back, so that they do not belong to one life of the sidecar.
    pub(super) fn since(&self, before: &Self) -> Option<Self> {
        let difference = self.combine(before, |now, before| now.map(|now| now - before.unwrap_or(0.0)));
        let lost = self.combine(before, |now, before| if now.is_none() { before } else { None });
        (lost == Self::default() && difference.values().all(|value| value >= 0.0)).then_some(difference)
    }

    /// Both together. What neither has stays absent.
    pub(super) fn plus(&self, other: &Self) -> Self {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (one, other) => one.or(other),
        })
    }

    fn combine(&self, other: &Self, merge: impl Fn(Option<f64>, Option<f64>) -> Option<f64>) -> Self {
        let labelled = |a: &Option<ByLabel>, b: &Option<ByLabel>| {
            let keys = a.iter().chain(b).flat_map(BTreeMap::keys);
            let value = |sums: &Option<ByLabel>, key| sums.as_ref().and_then(|sums| sums.get(key)).copied();
            let merged: ByLabel =
                keys.filter_map(|key| Some((key.clone(), merge(value(a, key), value(b, key))?))).collect();
            (!merged.is_empty()).then_some(merged)
        };
        Self {
            draft_seconds: labelled(&self.draft_seconds, &other.draft_seconds),
            verify_seconds: labelled(&self.verify_seconds, &other.verify_seconds),
            decode_seconds: merge(self.decode_seconds, other.decode_seconds),
            drafts: merge(self.drafts, other.drafts),
            draft_tokens: merge(self.draft_tokens, other.draft_tokens),
            accepted_tokens: merge(self.accepted_tokens, other.accepted_tokens),
            accepted_by_drafter: labelled(&self.accepted_by_drafter, &other.accepted_by_drafter),
            accepted_by_position: labelled(&self.accepted_by_position, &other.accepted_by_position),
            drafted_by_position: labelled(&self.drafted_by_position, &other.drafted_by_position),
            decoded_tokens: merge(self.decoded_tokens, other.decoded_tokens),
            tail_samples: merge(self.tail_samples, other.tail_samples),
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let labelled = [
            &self.draft_seconds,
            &self.verify_seconds,
            &self.accepted_by_drafter,
            &self.accepted_by_position,
            &self.drafted_by_position,
        ];
        let plain = [
            self.decode_seconds,
            self.drafts,
            self.draft_tokens,
            self.accepted_tokens,
            self.decoded_tokens,
            self.tail_samples,
        ];
        labelled.into_iter().flatten().flat_map(|sums| sums.values().copied()).chain(plain.into_iter().flatten())
    }
}

/// Whether a metrics page is a sidecar's.
pub(super) fn is_sidecar(page: &str) -> bool {
    page.lines().any(|line| line.starts_with("sidedraft_"))
}

struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Sample<'a> {
    /// The value of a label. Values with an escaped quote end there, and those of interest have none.
    fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        while let Some((label, after)) = rest.split_once("=\"") {
            let (value, tail) = after.split_once('"')?;
            if label.trim_start_matches([',', ' ']) == name {
                return Some(value);
            }
            rest = tail;
        }
        None
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, value) = rest.rsplit_once('}')?;
            (name, labels, value)
        }
        None => line.split_once(' ').map(|(name, value)| (name, "", value))?,
    };
    // A time may follow the value.
    Some(Sample { name, labels, value: rest.split_whitespace().next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP vllm:spec_decode_num_drafts_total Number.\n\
        vllm:spec_decode_num_drafts_total{engine=\"0\"} 900\n\
        vllm:spec_decode_num_drafts_total{engine=\"sidedraft\"} 10\n\
        vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"sidedraft\",position=\"0\"} 8\n\
        vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"sidedraft\",position=\"1\"} 5\n\
        sidedraft_draft_duration_seconds_bucket{drafter=\"neural\",le=\"+Inf\"} 10\n\
        sidedraft_draft_duration_seconds_sum{drafter=\"neural\"} 0.25 1700000000000\n\
        sidedraft_decoded_tokens_total 40\n";

    #[test]
    fn a_page_tells_the_sidecars_own_counters_and_no_others() {
        let counters = Counters::read(PAGE);
        assert_eq!(counters.drafts, Some(10.0));
        assert_eq!(counters.accepted_by_position, Some([("0".into(), 8.0), ("1".into(), 5.0)].into()));
        assert_eq!(counters.draft_seconds, Some([("neural".into(), 0.25)].into()));
        assert_eq!(counters.decoded_tokens, Some(40.0));
        assert_eq!(
            (counters.decode_seconds, counters.accepted_tokens, counters.drafted_by_position),
            (None, None, None)
        );
    }

    #[test]
    fn a_server_that_speculates_by_itself_has_counters_of_its_own() {
        let page =
            "vllm:spec_decode_num_drafts_total{engine=\"0\"} 3\nvllm:spec_decode_num_drafts_total{engine=\"1\"} 4\n";
        assert!(!is_sidecar(page) && is_sidecar(PAGE));
        assert_eq!(Counters::read(page).drafts, Some(7.0));
    }

    #[test]
    fn a_round_is_what_came_since_and_new_counters_began_at_zero() {
        let before = Counters::read("sidedraft_decoded_tokens_total 30\nvllm:spec_decode_num_drafts_total 10\n");
        let round = Counters::read(PAGE).since(&before).unwrap();
        assert_eq!((round.decoded_tokens, round.drafts, round.tail_samples), (Some(10.0), Some(0.0), None));
        assert_eq!(round.draft_seconds, Some([("neural".into(), 0.25)].into()));
    }

    #[test]
    fn a_restarted_sidecar_tells_nothing_of_the_round() {
        let page = Counters::read(PAGE);
        let less = Counters { decoded_tokens: Some(39.0), ..page.clone() };
        assert_eq!(less.since(&page), None);
        assert_eq!(Counters::default().since(&page), None);
    }

    #[test]
    fn rounds_add_up_and_what_is_absent_stays_absent() {
        let a =
            Counters::read("sidedraft_decoded_tokens_total 3\nsidedraft_draft_duration_seconds_sum{drafter=\"a\"} 1\n");
        let b =
            Counters::read("sidedraft_decoded_tokens_total 4\nsidedraft_draft_duration_seconds_sum{drafter=\"b\"} 2\n");
        let sum = a.plus(&b);
        assert_eq!(sum.decoded_tokens, Some(7.0));
        assert_eq!(sum.draft_seconds, Some([("a".into(), 1.0), ("b".into(), 2.0)].into()));
        assert_eq!(sum.drafts, None);
    }
}
