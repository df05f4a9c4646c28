//! The n-gram drafter proposes what a search over all pairs of positions finds.

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::draft::{DraftRequest, Drafter, NgramDrafter};

fn proposed(context: &[u32], shortest: usize, longest: usize, length: usize) -> Vec<u32> {
    let request = DraftRequest::new(context, length);
    let proposal = NgramDrafter::new(shortest, longest).propose(request).now_or_never().unwrap().unwrap();
    assert!(proposal.is_certain());
    proposal.tokens().collect()
}

/// The longest suffix first, of its earlier occurrences the latest.
fn searched(context: &[u32], shortest: usize, longest: usize, length: usize) -> Vec<u32> {
    for n in (shortest..=longest.min(context.len())).rev() {
        let suffix = &context[context.len() - n..];
        for end in (n..context.len()).rev() {
            if context[end - n..end] == *suffix {
                return context[end..].iter().copied().take(length).collect();
            }
        }
    }
    Vec::new()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_proposal_is_what_a_quadratic_search_finds(
        context in vec(0..4_u32, 0..40), shortest in 1..4_usize, more in 0..4_usize, length in 0..6_usize,
    ) {
        let longest = shortest + more;
        prop_assert_eq!(
            proposed(&context, shortest, longest, length),
            searched(&context, shortest, longest, length)
        );
    }
}
