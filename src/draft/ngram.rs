//! Prompt lookup: what followed the last n tokens the last time they stood in the context.

use super::{DraftRequest, Drafter, ProposalFuture};
use crate::speculation::{Draft, Proposal, TokenId};

/// Drafts from the context itself (prompt lookup decoding). Costs no model and knows nothing new.
#[derive(Debug, Clone, Copy)]
pub struct NgramDrafter {
    longest: usize,
    shortest: usize,
}

impl NgramDrafter {
    /// A drafter that looks for the last `longest` tokens first and gives up below the last `shortest`.
    #[must_use]
    pub fn new(shortest: usize, longest: usize) -> Self {
        Self { longest, shortest: shortest.max(1) }
    }
}

impl Drafter for NgramDrafter {
    fn name(&self) -> &'static str {
        "ngram"
    }

    fn is_free(&self) -> bool {
        true
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        let drafts = lookup(request.context, self.shortest, self.longest, request.length);
        let drafts = request.take(drafts.iter().map(|token| Draft::certain(*token)));
        Box::pin(std::future::ready(Ok(Proposal { drafts })))
    }
}

/// What followed the latest earlier occurrence of the longest suffix of `context` between `shortest` and `longest`
/// tokens, up to `length` tokens of it.
///
/// Linear in the context: walking back from the end, it measures at each position how far the tokens before it
/// agree with the end of the context.
fn lookup(context: &[TokenId], shortest: usize, longest: usize, length: usize) -> &[TokenId] {
    let mut best = (0, 0);
    for end in (1..context.len()).rev() {
        let agreeing =
            context[..end].iter().rev().zip(context.iter().rev()).take(longest).take_while(|(a, b)| a == b).count();
        if agreeing > best.0 {
            best = (agreeing, end);
            if agreeing == longest {
                break;
            }
        }
    }
    let (agreeing, end) = best;
    if agreeing < shortest || length == 0 {
        return &[];
    }
    &context[end..context.len().min(end + length)]
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
