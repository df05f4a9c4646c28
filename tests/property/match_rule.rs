//! The match rule leaves the target's distribution as it is, whatever the drafter.

use proptest::prelude::*;

use super::generate::case;
use super::output::{distance, of_match_rule};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_output_is_distributed_as_the_target((p, law, _) in case()) {
        let output = of_match_rule(&p, &law);
        prop_assert!(distance(&output, &p) < 1e-12, "{output:?} instead of {p:?}");
    }
}
