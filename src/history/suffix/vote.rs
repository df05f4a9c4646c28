//! Which token the places found so far agree on, and how likely it is.
//!
//! The estimate backs off from longer contexts to shorter ones: for each of a few lengths, ascending, of the C places that
//! agree that far c say token x, and P(x) = (c + K · P'(x)) / (C + K), where P' is the estimate of the length before. This is
//! the predictive rule of a hierarchical Dirichlet prior (MacKay and Peto, "A hierarchical Dirichlet language model", 1995)
//! with the same strength K everywhere. Before any length, P is 0: nothing is likely unless it was seen.

use super::{Pages, Position};
use crate::speculation::TokenId;

/// Lengths of agreement that are told apart, ascending.
const ORDERS: [u32; 5] = [2, 4, 8, 16, 32];

/// How many places the estimate of a shorter context is worth.
const K: f32 = 1.0;

/// A place after a suffix of the context.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) position: Position,
    /// How many tokens before it agree with the context.
    pub(super) matched: u32,
    /// The token there.
    pub(super) token: TokenId,
}

impl Place {
    /// Goes on to the next token, which is one more that agreed; false at the end of the text.
    pub(super) fn advance(&mut self, pages: &Pages) -> bool {
        let Some(position) = pages.after(self.position) else { return false };
        *self = Self { position, matched: self.matched + 1, token: pages.token(position) };
        true
    }

    /// The longest order that it agrees to.
    fn order(&self) -> usize {
        ORDERS.partition_point(|order| *order <= self.matched).saturating_sub(1)
    }
}

/// Places by token and by the longest order that they agree to.
#[derive(Debug, Default)]
pub(super) struct Votes {
    counts: Vec<(TokenId, [f32; ORDERS.len()])>,
}

impl Votes {
    /// The likeliest token at `places`, the one of the first place among equals, with its estimate.
    pub(super) fn best(&mut self, places: &[Place]) -> Option<(TokenId, f32)> {
        let mut all = [0.0; ORDERS.len()];
        self.counts.clear();
        for place in places {
            let order = place.order();
            all[order] += 1.0;
            match self.counts.iter_mut().find(|(token, _)| *token == place.token) {
                Some((_, counts)) => counts[order] += 1.0,
                None => {
                    let mut counts = [0.0; ORDERS.len()];
                    counts[order] = 1.0;
                    self.counts.push((place.token, counts));
                }
            }
        }
        let estimates = self.counts.iter().map(|(token, counts)| (*token, estimate(counts, &all)));
        estimates.reduce(|best, other| if other.1 > best.1 { other } else { best })
    }
}

/// The probability of a token with `counts` places of `all`, each counted at its longest order.
fn estimate(counts: &[f32; ORDERS.len()], all: &[f32; ORDERS.len()]) -> f32 {
    let (mut agreeing, mut total) = (counts.iter().sum::<f32>(), all.iter().sum::<f32>());
    let mut estimate = 0.0;
    for (count, whole) in counts.iter().zip(all) {
        if total == 0.0 {
            break;
        }
        estimate = (agreeing + K * estimate) / (total + K);
        agreeing -= count;
        total -= whole;
    }
    estimate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(matched: u32, token: TokenId) -> Place {
        Place { position: Position::unpacked(0).unwrap(), matched, token }
    }

    fn best(places: &[(u32, TokenId)]) -> (TokenId, f32) {
        let places: Vec<_> = places.iter().map(|(matched, token)| place(*matched, *token)).collect();
        Votes::default().best(&places).unwrap()
    }

    #[test]
    fn more_places_and_longer_contexts_make_surer() {
        assert_eq!(best(&[(2, 7)]), (7, 0.5));
        assert_eq!(best(&[(3, 7), (2, 7), (2, 8)]), (7, 0.5));
        assert_eq!(best(&[(4, 7)]), (7, 0.75));
        let surer = [2, 4, 8, 16, 32, 99].map(|matched| best(&[(matched, 7)]).1);
        assert!(surer[..5].windows(2).all(|pair| pair[0] < pair[1]) && surer[4] == surer[5], "{surer:?}");
        assert_eq!(best(&[(2, 7); 3]), (7, 0.75));
    }

    #[test]
    fn a_longer_context_outweighs_as_many_shorter_ones() {
        assert_eq!(best(&[(2, 8), (8, 7)]).0, 7);
        assert_eq!(best(&[(8, 7), (2, 8)]).0, 7);
        assert_eq!(best(&[(5, 8), (5, 7)]).0, 8, "the first of equals");
        assert!(Votes::default().best(&[]).is_none());
    }
}
