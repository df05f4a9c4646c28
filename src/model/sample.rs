//! From a row of logits to a drafted token, the distribution it was drawn from, and how sure the model was.

use std::sync::Arc;

use rand::Rng;

use super::error::ModelError;
use crate::speculation::{StopRule, TokenId};

/// Ids that a draft is drawn from unless told otherwise. More would cost little here, but every listed id must
/// be matched against the target's row.
const DEFAULT_TOP_M: usize = 32;

/// Ids over which confidence is computed: the rest of the vocabulary has little, and adding it up costs more.
const CONFIDENT_AMONG: usize = 32;

/// How to draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftSampling {
    /// Tokens wanted. Fewer come only where the model's positions end, or where one of the next two says so.
    pub length: usize,
    /// When to stop before that.
    pub stop: StopRule,
    /// Ids after which to stop.
    pub ends: Arc<[TokenId]>,
    /// 0 (or anything that is not above it): the most likely token, as a point mass, the first id on a tie.
    pub temperature: f64,
    /// With a temperature: q is the softmax restricted to this many most likely ids; at least 1.
    pub top_m: usize,
    /// Only ids below this are drafted: the target's vocabulary, if it is smaller than the draft's.
    pub usable_vocabulary: usize,
}

impl DraftSampling {
    /// `length` tokens at `temperature`, from the most likely 32 ids of the whole vocabulary.
    #[must_use]
    pub fn new(length: usize, temperature: f64) -> Self {
        Self {
            length,
            stop: StopRule::never(),
            ends: Arc::default(),
            temperature,
            top_m: DEFAULT_TOP_M,
            usable_vocabulary: usize::MAX,
        }
    }

    /// Whether both draw each token from the same distribution, however far they go.
    pub(super) fn draws_like(&self, other: &Self) -> bool {
        (self.temperature, self.top_m, self.usable_vocabulary)
            == (other.temperature, other.top_m, other.usable_vocabulary)
    }
}

/// A drafted token.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftedToken {
    /// The token.
    pub token: TokenId,
    /// The ids that it was drawn from, most likely first, with probabilities above 0 that sum to 1 within 1e-12;
    /// `None` for a point mass (greedy).
    pub distribution: Option<Vec<(TokenId, f64)>>,
    /// The likeliest id's probability at temperature 1, among the 32 likeliest: a little too high where the rest
    /// matters, so it serves to forecast acceptance and for nothing else.
    pub confidence: f32,
}

/// What the model says of a position.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) logits: &'a [f32],
    /// The id of each logit; absent where logits are of all ids in order.
    pub(super) ids: Option<&'a [TokenId]>,
}

impl Row<'_> {
    fn id(&self, index: usize) -> TokenId {
        self.ids.map_or(index as TokenId, |ids| ids[index])
    }
}

/// Draws the token after a position.
///
/// # Errors
/// [`ModelError::NoFiniteLogit`].
pub(super) fn draw(row: Row<'_>, sampling: &DraftSampling, rng: &mut impl Rng) -> Result<DraftedToken, ModelError> {
    // Written so that a NaN temperature is greedy too.
    let samples = sampling.temperature > 0.0;
    let top_m = if samples { sampling.top_m.max(1) } else { 1 };
    let top = top(row, sampling.usable_vocabulary, top_m.max(CONFIDENT_AMONG));
    let Some(&(best, best_logit)) = top.first() else {
        return Err(ModelError::NoFiniteLogit);
    };
    let among: f32 = top.iter().take(CONFIDENT_AMONG).map(|(_, logit)| (logit - best_logit).exp()).sum();
    let confidence = 1.0 / among;
    if !samples {
        return Ok(DraftedToken { token: best, distribution: None, confidence });
    }
    let top = &top[..top.len().min(top_m)];
    let weight = |logit: f32| ((f64::from(logit) - f64::from(best_logit)) / sampling.temperature).exp();
    let total: f64 = top.iter().map(|(_, logit)| weight(*logit)).sum();
    let distribution: Vec<(TokenId, f64)> =
        top.iter().map(|(id, logit)| (*id, weight(*logit) / total)).filter(|(_, q)| *q > 0.0).collect();
    let token = invert(&distribution, rng.random()).unwrap_or(best);
    Ok(DraftedToken { token, distribution: Some(distribution), confidence })
}

/// The id where the cumulative probability passes `u`, which is in [0, 1). Rounding may leave the sum just below
/// 1; what is missing belongs to the last id.
fn invert(distribution: &[(TokenId, f64)], u: f64) -> Option<TokenId> {
    let mut cumulative = 0.0;
    for (id, probability) in distribution {
        cumulative += probability;
        if u < cumulative {
            return Some(*id);
        }
    }
    distribution.last().map(|(id, _)| *id)
}

/// Logits that [`top`] looks at together.
const CHUNK: usize = 64;

/// The `count` largest finite logits of ids below `usable`, largest first; among equals the one that stands first.
fn top(row: Row<'_>, usable: usize, count: usize) -> Vec<(TokenId, f32)> {
    let logits = row.logits;
    let mut best: Vec<(TokenId, f32)> = Vec::with_capacity(count.min(logits.len()) + 1);
    let mut threshold = f32::NEG_INFINITY;
    for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
        // Nearly every chunk has nothing, which is seen without a branch for each logit. NaN is above nothing.
        if !logits.iter().fold(false, |any, logit| any | (*logit > threshold)) {
            continue;
        }
        for (index, &logit) in (chunk * CHUNK..).zip(logits) {
            if logit > threshold && logit < f32::INFINITY && (row.id(index) as usize) < usable {
                let place = best.partition_point(|(_, other)| *other >= logit);
                best.insert(place, (row.id(index), logit));
                best.truncate(count);
                if let (true, Some((_, last))) = (best.len() == count, best.last()) {
                    threshold = *last;
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::model::stats::g_test;

    fn whole(logits: &[f32]) -> Row<'_> {
        Row { logits, ids: None }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_ids_as_a_point_mass() {
        let mut rng = StdRng::seed_from_u64(0);
        let drafted = draw(whole(&[0.5, 2.0, f32::NAN, 2.0]), &DraftSampling::new(1, 0.0), &mut rng).unwrap();
        assert_eq!((drafted.token, drafted.distribution), (1, None));
    }

    #[test]
    fn confidence_is_the_likeliest_probability_at_temperature_1_whatever_is_drawn_from() {
        let mut rng = StdRng::seed_from_u64(0);
        let logits = [0.3f32, 1.9, -2.0, 0.8, f32::NAN];
        let total: f32 = logits[..4].iter().map(|logit| logit.exp()).sum();
        for (temperature, top_m) in [(0.0, 32), (0.3, 32), (2.0, 1)] {
            let sampling = DraftSampling { top_m, ..DraftSampling::new(1, temperature) };
            let drafted = draw(whole(&logits), &sampling, &mut rng).unwrap();
            assert!((drafted.confidence - logits[1].exp() / total).abs() < 1e-6);
        }
        let alike = draw(whole(&[1.0; 100]), &DraftSampling::new(1, 0.0), &mut rng).unwrap();
        assert!((alike.confidence - 1.0 / 32.0).abs() < 1e-6);
    }

    #[test]
    fn ids_outside_the_usable_vocabulary_are_never_drawn() {
        let mut rng = StdRng::seed_from_u64(0);
        let sampling = DraftSampling { usable_vocabulary: 2, ..DraftSampling::new(1, 1.0) };
        let drafted = draw(whole(&[0.0, 0.0, 50.0]), &sampling, &mut rng).unwrap();
        assert_eq!(drafted.distribution, Some(vec![(0, 0.5), (1, 0.5)]));
    }

    #[test]
    fn of_listed_ids_those_are_drawn_that_the_logits_belong_to() {
        let mut rng = StdRng::seed_from_u64(0);
        let row = Row { logits: &[0.0, 9.0, 0.0, 1.0], ids: Some(&[4, 50, 7, 2]) };
        let sampling = DraftSampling { usable_vocabulary: 10, top_m: 2, ..DraftSampling::new(1, 1.0) };
        let drafted = draw(row, &sampling, &mut rng).unwrap().distribution.unwrap();
        let likelier = 1.0 / (1.0 + (-1.0f64).exp());
        assert!(drafted.iter().map(|(id, _)| *id).eq([2, 4]) && (drafted[0].1 - likelier).abs() < 1e-9);
    }

    #[test]
    fn no_finite_logit_is_an_error() {
        let mut rng = StdRng::seed_from_u64(0);
        for logits in [&[][..], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]] {
            let result = draw(whole(logits), &DraftSampling::new(1, 1.0), &mut rng);
            assert!(matches!(result, Err(ModelError::NoFiniteLogit)));
        }
    }

    #[test]
    fn draws_follow_the_reported_distribution() {
        let logits: Vec<f32> = (0..40).map(|i| (i as f32 * 0.9).sin() * 2.0).collect();
        let sampling = DraftSampling { top_m: 8, ..DraftSampling::new(1, 0.8) };
        let mut rng = StdRng::seed_from_u64(11);
        let q = draw(whole(&logits), &sampling, &mut rng).unwrap().distribution.unwrap();
        assert_eq!(q.len(), 8);
        let draws = 200_000;
        let mut counts = [0u64; 8];
        for _ in 0..draws {
            let token = draw(whole(&logits), &sampling, &mut rng).unwrap().token;
            counts[q.iter().position(|(id, _)| *id == token).unwrap()] += 1;
        }
        let test = g_test(&counts, &q.iter().map(|(_, q)| *q).collect::<Vec<_>>());
        assert!(test.p_value > 1e-3, "{test:?}");
    }

    proptest! {
        #[test]
        fn the_top_is_that_of_a_sort(logits in prop::collection::vec(-4i8..4, 0..300), count in 1usize..40) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut sorted: Vec<_> = (0..).zip(logits.iter().copied()).collect();
            sorted.sort_by(|a: &(TokenId, f32), b| b.1.total_cmp(&a.1));
            sorted.truncate(count);
            prop_assert_eq!(top(whole(&logits), usize::MAX, count), sorted);
        }

        #[test]
        fn q_is_the_renormalised_softmax_of_the_top(
            logits in prop::collection::vec(-30.0f32..30.0, 1..200),
            temperature in 0.01f64..5.0,
            top_m in 1usize..40,
            seed: u64,
        ) {
            let sampling = DraftSampling { top_m, ..DraftSampling::new(1, temperature) };
            let drafted = draw(whole(&logits), &sampling, &mut StdRng::seed_from_u64(seed)).unwrap();
            let q = drafted.distribution.unwrap();
            prop_assert!((q.iter().map(|(_, q)| q).sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(q.iter().any(|(id, q)| *id == drafted.token && *q > 0.0));
            prop_assert!(q.len() <= top_m);
            for pair in q.windows(2) {
                let gap = f64::from(logits[pair[0].0 as usize]) - f64::from(logits[pair[1].0 as usize]);
                prop_assert!(gap >= 0.0);
                if pair[1].1 > 1e-200 {
                    prop_assert!(((pair[0].1 / pair[1].1).ln() - gap / temperature).abs() < 1e-6);
                }
            }
        }
    }
}
