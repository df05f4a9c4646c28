//! The n-gram drafter proposes what a search over all pairs of positions finds.

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::draft::{DraftRequest, Drafter, NgramDrafter};

fn proposed(drafter: &mut NgramDrafter, context: &[u32], length: usize) -> Vec<u32> {
    let proposal = drafter.propose(DraftRequest::new(context, length)).now_or_never().unwrap().unwrap();
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
            proposed(&mut NgramDrafter::new(shortest, longest), &context, length),
            searched(&context, shortest, longest, length)
        );
    }

    #[test]
    fn a_context_that_grows_or_is_cut_is_searched_as_if_it_were_new(
        steps in vec((0..30_usize, vec(0..4_u32, 0..12)), 0..8), shortest in 1..4_usize, more in 0..4_usize,
    ) {
        let mut drafter = NgramDrafter::new(shortest, shortest + more);
        let mut context = Vec::new();
        for (cut, tokens) in steps {
            // Mostly it grows.
            context.truncate(if cut < 8 { cut } else { context.len() });
            context.extend(tokens);
            prop_assert_eq!(proposed(&mut drafter, &context, 5), searched(&context, shortest, shortest + more, 5));
        }
    }
}

#[test]
fn of_many_occurrences_the_latest_are_looked_at() {
    // Ever the same pair, each time after another token, and only the first time after the one that it now follows.
    let context: Vec<u32> = (0..100).flat_map(|i| [100 + i, 1, 2]).chain([100, 1, 2]).collect();
    assert_eq!(proposed(&mut NgramDrafter::new(2, 3), &context, 1), [100], "what followed the latest");
    let near = [&context[..3], &context[150..]].concat();
    assert_eq!(proposed(&mut NgramDrafter::new(2, 3), &near, 1), [150], "what followed the longest");
}
