//! Where `target` says that it knows the target's distribution, it is that of the whole vocabulary; and it says so
//! wherever the row tells enough.

use proptest::prelude::*;
use sidedraft::speculation::{Known, Row, Sampling, target};

use super::brute_force::{self, Parameters};
use super::generate::{distribution, normalised, row};

/// Distributions, some of which have ids of exactly equal probability.
pub fn raw() -> impl Strategy<Value = Vec<f64>> {
    let tied = proptest::collection::vec(1..6_u32, 2..=12)
        .prop_map(|weights| normalised(&weights.iter().map(|weight| f64::from(*weight)).collect::<Vec<_>>()));
    prop_oneof![2 => (2..=12_usize).prop_flat_map(distribution), 1 => tied]
}

pub fn parameters() -> impl Strategy<Value = Parameters> {
    let temperature = prop_oneof![Just(0.0), Just(1.0), Just(1.0), 0.2..2.0_f64, Just(0.001)];
    let top_k = prop_oneof![2 => Just(0_usize), 3 => 1..=14_usize];
    let top_p = prop_oneof![2 => Just(1.0), 2 => 0.05..1.0_f64];
    let min_p = prop_oneof![2 => Just(0.0), 2 => 0.0..0.9_f64];
    (temperature, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Parameters {
        temperature,
        top_k,
        top_p,
        min_p,
    })
}

pub fn sampling(parameters: Parameters) -> Sampling {
    let Parameters { temperature, top_k, top_p, min_p } = parameters;
    Sampling::new(temperature, Some(top_k), top_p, min_p).unwrap()
}

/// Whether `known` says of each id what `expected` does, those in its tail taken together.
fn agrees(known: &Known<'_>, row: &Row, expected: &[f64]) -> Result<(), String> {
    let mut outside = 0.0;
    if let Some((id, p)) = known.listed().find(|(id, p)| known.probability_of(*id) != Some(*p)) {
        return Err(format!("{p} in the list for id {id}"));
    }
    for (id, p) in (0u32..).zip(expected) {
        match known.probability_of(id) {
            Some(said) if (said - p).abs() < 1e-9 => {}
            Some(said) => return Err(format!("{said} instead of {p} for id {id}")),
            None if row.logprob(id).is_some() => return Err(format!("id {id} is in the row and not known")),
            None => outside += p,
        }
    }
    if (outside - known.tail()).abs() < 1e-9 {
        Ok(())
    } else {
        Err(format!("a tail of {} for {outside}", known.tail()))
    }
}

/// Whether the row tells enough, with nothing near a border: a lower bound on what must be known.
fn is_told(raw: &[f64], n: usize, parameters: Parameters) -> bool {
    const NEAR: f64 = 1e-3;
    let Parameters { temperature, top_k, top_p, min_p } = parameters;
    let mut sorted = raw.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    // The likeliest id that the row does not list, were it in step with the vocabulary.
    let listed = &sorted[..n.min(sorted.len())];
    let (Some(first), Some(last)) = (listed.first(), listed.last()) else { return false };
    if temperature == 0.0 {
        return last < first;
    }
    let temperature = temperature.max(0.01);
    let scaled: Vec<f64> = listed.iter().map(|p| (p / first).powf(1.0 / temperature)).collect();
    let mut support = scaled.as_slice();
    let mut complete = false;
    if min_p > 0.0 {
        if scaled.iter().any(|p| (p.ln() - min_p.ln()).abs() < NEAR) {
            return false;
        }
        support = &scaled[..scaled.iter().take_while(|p| **p > min_p).count()];
        complete = support.len() < scaled.len();
    }
    if top_k > 0 && top_k < support.len() {
        if support[top_k] == support[top_k - 1] {
            return false;
        }
        support = &support[..top_k];
        complete = true;
    }
    if top_p >= 1.0 {
        return complete || (temperature == 1.0 && top_k == 0 && min_p == 0.0);
    }
    let untruncated = top_k == 0 && min_p == 0.0 && temperature == 1.0;
    if !complete && !untruncated {
        return false;
    }
    let probabilities = if complete { normalised(support) } else { listed.to_vec() };
    let mut above = 0.0;
    let mut count = 0;
    while count < probabilities.len() && above < top_p {
        if (above - top_p).abs() < NEAR {
            return false;
        }
        above += probabilities[count];
        count += 1;
    }
    let cut = count < probabilities.len();
    (above - top_p).abs() > NEAR && (complete || cut) && (!cut || probabilities[count] < probabilities[count - 1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_is_known_is_what_the_server_samples_from(raw in raw(), n in 0..=14_usize, parameters in parameters()) {
        let expected = brute_force::distribution(&raw, parameters);
        for draft in 0..raw.len() as u32 {
            let row = row(&raw, n, draft);
            match target(&row, &sampling(parameters)) {
                Some(known) => {
                    if let Err(difference) = agrees(&known, &row, &expected) {
                        prop_assert!(false, "{} (draft {})", difference, draft);
                    }
                }
                None => prop_assert!(!is_told(&raw, n, parameters), "unknown, though the row of draft {} tells", draft),
            }
        }
    }

    /// A row of the length that the sampling parameters ask for tells a generic target.
    #[test]
    fn a_row_of_the_asked_length_tells_of_top_k_and_of_the_likeliest(
        raw in (8..=12_usize).prop_flat_map(distribution), top_k in 0..=6_usize, temperature in 0.3..2.0_f64,
    ) {
        let temperature = if top_k == 0 { 0.0 } else { temperature };
        let sampling = Sampling::new(temperature, Some(top_k), 1.0, 0.0).unwrap();
        let length = sampling.row_length(20).unwrap();
        prop_assert!(target(&row(&raw, length, 0), &sampling).is_some());
    }
}
