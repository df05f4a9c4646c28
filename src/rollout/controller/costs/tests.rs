use super::*;

fn alone() -> Company {
    Company { speculating: 1.0, decoding: 0.0 }
}

/// A server of known costs that was measured at loads 1 to 32.
fn measured() -> Costs {
    let mut costs = Costs::default();
    for load in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0] {
        costs.observe(Measurement::Decoded { load, interval: 0.0062 + 0.00003 * load, tokens: 40.0 });
    }
    costs
}

#[test]
fn the_costs_of_verification_are_found_again() {
    let mut costs = measured();
    for index in 0..80_u32 {
        let new_tokens = f64::from(index % 20);
        let seconds = 0.0062 + 0.00003 + 0.0012 + 0.00004 * new_tokens;
        let strategy = Strategy::CachedSuffix;
        costs.observe(Measurement::Verified { strategy, company: alone(), new_tokens, elsewhere: 0.0, seconds });
    }
    let cost = costs.round(Strategy::CachedSuffix, Some(0), true, alone()).unwrap();
    assert!((cost.verify.fixed - 0.0012).abs() < 1e-4, "{cost:?}");
    assert!((cost.verify.each - 0.00004).abs() < 1.5e-5, "{cost:?}");
    assert!((cost.base - 0.0062).abs() < 1e-4 && (cost.row - 0.00003).abs() < 1e-5, "{cost:?}");
}

/// A trainer that always runs four rollouts, on a server for which a verified token is nearly as much work as a decoded one.
#[test]
fn what_a_new_token_costs_is_found_where_no_rollout_is_ever_alone() {
    let mut costs = Costs::default();
    costs.observe(Measurement::Decoded { load: 4.0, interval: 0.044, tokens: 40.0 });
    let company = Company { speculating: 1.0, decoding: 3.0 };
    for index in 0..60_u32 {
        let new_tokens = f64::from(index % 30 + 8);
        // The end of a step of the others', and one with all in it.
        let wait = if index % 2 == 0 { 0.01 } else { 0.034 };
        let seconds = 0.008 + wait + 0.044 + 0.0038 * new_tokens;
        let strategy = Strategy::CachedSuffix;
        costs.observe(Measurement::Verified { strategy, company, new_tokens, elsewhere: 0.0, seconds });
    }
    let cost = costs.round(Strategy::CachedSuffix, None, true, company).unwrap();
    assert!((cost.verify.each - 0.0038).abs() < 0.0004, "{cost:?}");
    let work = costs.work(Strategy::CachedSuffix, 4.0, 20.0);
    assert!((work - 0.076).abs() < 0.01, "{work}");
}

#[test]
fn a_draft_model_is_slower_in_company_and_what_it_read_first_is_not_its_drafts_cost() {
    let mut costs = measured();
    let drafted =
        |speculating, unread, seconds| Measurement::Drafted { drafter: 0, speculating, unread, tokens: 4, seconds };
    for _ in 0..100 {
        costs.observe(drafted(1.0, 1, 0.0024));
        costs.observe(drafted(32.0, 2, 0.0048));
        costs.observe(drafted(32.0, 500, 0.0048 + 0.025));
    }
    let of = |speculating| {
        let company = Company { speculating, decoding: 0.0 };
        costs.round(Strategy::CachedSuffix, Some(0), true, company).unwrap().draft.of(4.0)
    };
    assert!((of(1.0) - 0.0024).abs() < 1e-4 && (of(32.0) - 0.0048).abs() < 2e-4, "{} {}", of(1.0), of(32.0));
    assert!((costs.reading(0, 500) - 0.025).abs() < 0.001, "{}", costs.reading(0, 500));
}

#[test]
fn nothing_is_forecast_before_decoding_was_measured() {
    let costs = Costs::default();
    assert_eq!(costs.round(Strategy::FanOut, Some(0), true, alone()), None);
    assert!(costs.is_unmeasured(1.0));
    assert!(!measured().is_unmeasured(1.0) && !measured().is_unmeasured(12.0));
    assert!(measured().is_unmeasured(500.0), "far beyond what was measured");
}

#[test]
fn decoding_is_measured_again_when_verifications_take_another_time_than_before() {
    let mut costs = measured();
    let round = |seconds| Measurement::Verified {
        strategy: Strategy::CachedSuffix,
        company: Company { speculating: 8.0, decoding: 0.0 },
        new_tokens: 8.0,
        elsewhere: 0.004,
        seconds,
    };
    (0..40).for_each(|_| costs.observe(round(0.06)));
    assert!(!costs.is_stale(), "they always took that long");
    (0..40).for_each(|_| costs.observe(round(0.02)));
    assert!(costs.is_stale());
    costs.observe(Measurement::Decoded { load: 8.0, interval: 0.006, tokens: 8.0 });
    assert!(!costs.is_stale());
}

#[test]
fn decoding_is_measured_again_after_many_rounds() {
    let mut costs = measured();
    let round = Measurement::Verified {
        strategy: Strategy::CachedSuffix,
        company: alone(),
        new_tokens: 8.0,
        elsewhere: 0.0,
        seconds: 0.008,
    };
    (0..=STALE_AFTER).for_each(|_| costs.observe(round.clone()));
    assert!(costs.is_stale());
    costs.observe(Measurement::Decoded { load: 1.0, interval: 0.006, tokens: 8.0 });
    assert!(!costs.is_stale());
}
