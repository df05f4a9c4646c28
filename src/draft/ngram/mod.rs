//! Prompt lookup: what followed the last n tokens the last time they stood in the context.

mod index;

use self::index::SuffixIndex;
use super::{DraftRequest, Drafter, ProposalFuture};
use crate::speculation::{Draft, Proposal, TokenId};

/// How far a match is measured.
const MEASURED: usize = 32;

/// Drafts from the context itself (prompt lookup decoding). Costs no model and knows nothing new.
#[derive(Debug, Clone)]
pub struct NgramDrafter {
    longest: usize,
    shortest: usize,
    index: SuffixIndex,
}

impl NgramDrafter {
    /// A drafter that proposes what followed the latest occurrence of the context's last `longest` tokens; failing
    /// that, of the longest suffix that is at least `shortest`. Of a context that repeats its last `shortest` tokens
    /// very often, only the latest 64 occurrences are looked at.
    #[must_use]
    pub fn new(shortest: usize, longest: usize) -> Self {
        let shortest = shortest.max(1);
        Self { longest, shortest, index: SuffixIndex::new(shortest) }
    }

    /// The end of the best match in the context and the tokens that agree there.
    fn lookup(&mut self, context: &[TokenId]) -> Option<(usize, usize)> {
        self.index.extend(context);
        let mut best: Option<(usize, usize)> = None;
        for end in self.index.earlier(context) {
            let agreeing = agreement(context, end, self.longest);
            if best.is_none_or(|(_, longest)| agreeing > longest) {
                best = Some((end, agreeing));
            }
            if agreeing >= self.longest {
                break;
            }
        }
        best.filter(|(_, agreeing)| *agreeing >= self.shortest)
    }

    fn proposal(&mut self, request: &DraftRequest<'_>) -> Proposal {
        let context = request.context;
        let Some((end, _)) = self.lookup(context) else { return Proposal::default() };
        let agreeing = agreement(context, end, MEASURED);
        let followed = context[end..].iter().enumerate();
        let drafts =
            followed.map(|(index, token)| Draft::certain(*token).with_confidence(confidence(agreeing + index)));
        Proposal { drafts: request.take(drafts) }
    }
}

/// How many tokens before `end` are those at the end of the context, up to `most`.
fn agreement(context: &[TokenId], end: usize, most: usize) -> usize {
    context[..end].iter().rev().zip(context.iter().rev()).take(most).take_while(|(a, b)| a == b).count()
}

/// Confidence after a match of n tokens, n / (n + 1): no probability, but it grows with the match, and its log-odds
/// are ln n, so that twice the match is one bin further. A draft counts as matched when the next one is looked at,
/// since that one matters only if this one is accepted.
fn confidence(matched: usize) -> f32 {
    let matched = matched as f32;
    matched / (matched + 1.0)
}

impl Drafter for NgramDrafter {
    fn name(&self) -> &'static str {
        "ngram"
    }

    fn is_free(&self) -> bool {
        true
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(std::future::ready(Ok(self.proposal(&request))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::speculation::{StopRule, confidence_bin};

    fn proposed(shortest: usize, longest: usize, request: DraftRequest<'_>) -> Vec<Draft> {
        NgramDrafter::new(shortest, longest).propose(request).now_or_never().unwrap().unwrap().drafts
    }

    fn lookup(context: &[TokenId], shortest: usize, longest: usize, length: usize) -> Vec<TokenId> {
        let drafts = proposed(shortest, longest, DraftRequest::new(context, length));
        drafts.iter().map(|draft| draft.token).collect()
    }

    #[test]
    fn the_continuation_of_the_longest_repeated_suffix_is_proposed() {
        //              the pair (1 2) stands twice before, but only the first follows a 9
        let context = [9, 1, 2, 7, 8, 5, 1, 2, 3, 9, 1, 2];
        assert_eq!(lookup(&context, 1, 3, 2), [7, 8]);
        assert_eq!(lookup(&context, 1, 2, 2), [3, 9], "with two tokens the latest occurrence wins");
    }

    #[test]
    fn nothing_is_proposed_without_a_long_enough_match() {
        assert_eq!(lookup(&[1, 2, 3, 4], 1, 4, 4), [0_u32; 0]);
        assert_eq!(lookup(&[1, 5, 1], 2, 4, 4), [0_u32; 0]);
        assert_eq!(lookup(&[], 1, 4, 4), [0_u32; 0]);
        assert_eq!(lookup(&[4], 1, 4, 4), [0_u32; 0]);
    }

    #[test]
    fn a_run_of_one_token_proposes_more_of_it() {
        assert_eq!(lookup(&[6, 6, 6, 6], 1, 3, 4), [6]);
    }

    #[test]
    fn a_long_match_is_proposed_whole_and_the_longer_the_surer() {
        let text: Vec<TokenId> = (0..100).collect();
        let confidence_after = |matched: usize| {
            let context = [&text[..], &[1000], &text[10..10 + matched]].concat();
            let drafts = proposed(2, 4, DraftRequest::new(&context, 64));
            let expected: Vec<TokenId> = context[10 + matched..].iter().copied().take(64).collect();
            assert_eq!(drafts.iter().map(|draft| draft.token).collect::<Vec<_>>(), expected);
            assert!(drafts.is_sorted_by(|a, b| a.confidence < b.confidence));
            drafts[0].confidence.unwrap()
        };
        let bins = [2, 4, 8, 16, 32].map(|matched| confidence_bin(confidence_after(matched)));
        assert!(bins.windows(2).all(|pair| pair[0] < pair[1]), "{bins:?}");
        assert!((confidence_after(2) - 2.0 / 3.0).abs() < 1e-6);
        assert_eq!(confidence_after(40), confidence_after(32), "no further than it is measured");
    }

    #[test]
    fn it_stops_where_it_is_told_to() {
        let context = [5, 6, 7, 8, 9, 10, 5, 6];
        let request = DraftRequest::new(&context, 4);
        assert_eq!(proposed(2, 4, DraftRequest { ends: &[8], ..request }).len(), 2);
        let mut stop = StopRule { least: 0.3, ..StopRule::never() };
        stop.acceptance.fill(0.5);
        assert_eq!(proposed(2, 4, DraftRequest { stop, ..request }).len(), 2);
    }
}
