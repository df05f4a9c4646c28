use super::super::acceptance::Judged;
use super::super::forecast::Company;
use super::super::measurement::Measurement;
use super::super::offers::{new_tokens, usual_new_tokens};
use super::*;
use crate::speculation::{Draft, DraftDistribution};
use crate::verify::Strategy;

/// A draft model.
const CANDIDATE: Candidate<'static> =
    Candidate { drafter: 0, hazard: 1.0, unread: 0, longest: 16, is_at_hand: false, is_veiled: false, ready: None };
const PLAN: Plan = Plan { strategy: Strategy::CachedSuffix, row_length: 2 };

/// A server of 6.2 ms a step, whose drafter is accepted with this probability and takes 0.6 ms a token.
fn costs(acceptance: f64) -> Costs {
    let mut costs = Costs::default();
    for load in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0] {
        costs.observe(Measurement::Decoded { load, interval: 0.0062 + 0.00003 * load, tokens: 40.0 });
    }
    for index in 0..60_u32 {
        let new_tokens = f64::from(index % 20);
        costs.observe(Measurement::Verified {
            strategy: Strategy::CachedSuffix,
            company: Company { speculating: 1.0, decoding: 0.0 },
            new_tokens,
            elsewhere: 0.0,
            seconds: 0.00743 + 0.00004 * new_tokens,
        });
        let tokens = index as usize % 8 + 1;
        let seconds = 0.0006 * tokens as f64;
        costs.observe(Measurement::Drafted { drafter: 0, speculating: 1.0, unread: 1, tokens, seconds });
    }
    for index in 0..600 {
        let accepted = f64::from(index % 100) < 100.0 * acceptance;
        let drafts = vec![Judged { position: index as usize % 12, confidence: None, accepted }];
        costs.observe(Measurement::Judged { drafter: 0, drafts });
    }
    costs
}

fn decide(costs: &Costs, rollouts: f64, mode: Option<Mode>, allowance: f64) -> Choice {
    choose(&Situation {
        policy: &Policy::default(),
        costs,
        plan: PLAN,
        greedy: true,
        rollouts,
        speculating: if mode == Some(Mode::Speculate) { rollouts } else { 0.0 },
        committed: 0,
        context: 1000,
        room: 400,
        candidates: &[CANDIDATE],
        mode,
        allowance,
        joint_allowance: 0.0,
        undecided: 0.0,
    })
}

#[test]
fn a_good_drafter_is_used_while_few_rollouts_run_and_not_in_a_crowd() {
    let costs = costs(0.85);
    for (rollouts, mode) in [(1.0, Mode::Speculate), (8.0, Mode::Speculate), (128.0, Mode::Decode)] {
        let choice = decide(&costs, rollouts, None, 0.0);
        assert_eq!((choice.mode(), choice.reason), (mode, Reason::Fastest), "{rollouts}: {choice:?}");
    }
}

#[test]
fn a_drafter_that_is_always_wrong_is_tried_only_as_far_as_the_allowance_goes() {
    let costs = costs(0.0);
    assert_eq!(decide(&costs, 1.0, None, 0.0).mode(), Mode::Decode);
    let tried = decide(&costs, 1.0, None, 5.0);
    assert_eq!(tried.reason, Reason::Explore);
    assert!(tried.bet.unwrap().stake > 0.0);
}

#[test]
fn a_trial_costs_the_others_of_a_crowd_as_well() {
    let costs = costs(0.3);
    let stake = |rollouts| decide(&costs, rollouts, Some(Mode::Decode), 1000.0).bet.unwrap().stake;
    assert!(stake(32.0) > stake(1.0) + 2.0, "{} and {}", stake(32.0), stake(1.0));
}

fn two_drafters<'a>(costs: &'a Costs, policy: &'a Policy, candidates: &'a [Candidate<'a>]) -> Situation<'a> {
    Situation {
        policy,
        costs,
        plan: PLAN,
        greedy: true,
        rollouts: 1.0,
        speculating: 0.0,
        committed: 100,
        context: 1000,
        room: 400,
        candidates,
        mode: Some(Mode::Decode),
        allowance: 10.0,
        joint_allowance: 0.0,
        undecided: 0.0,
    }
}

#[test]
fn drafters_that_do_not_pay_are_tried_in_turn_and_not_just_the_better_one() {
    let mut costs = costs(0.0);
    let judged = |drafter, accepted| Measurement::Judged {
        drafter,
        drafts: (0..100).map(|_| Judged { position: 0, confidence: None, accepted }).collect(),
    };
    let candidates = [0, 1].map(|drafter| Candidate { drafter, ..CANDIDATE });
    let policy = Policy::default();
    let tried = |costs: &Costs| {
        let choice = choose(&two_drafters(costs, &policy, &candidates));
        assert_eq!(choice.reason, Reason::Explore);
        choice.bet.unwrap().drafter
    };
    costs.observe(judged(1, false));
    assert_eq!(tried(&costs), 0, "the other one was judged last");
    costs.observe(judged(0, false));
    assert_eq!(tried(&costs), 1);
}

/// That drafter 0 reads 1000 tokens in half a second.
fn slow_to_read(mut costs: Costs) -> Costs {
    for _ in 0..20 {
        let reading = Measurement::Drafted { drafter: 0, speculating: 1.0, unread: 1000, tokens: 1, seconds: 0.5 };
        costs.observe(reading);
    }
    assert!((costs.reading(0, 1000) - 0.5).abs() < 0.01);
    costs
}

/// For a decoding rollout alone.
fn decide_unread(costs: &Costs, unread: usize, committed: usize) -> Choice {
    let candidates = [Candidate { unread, ..CANDIDATE }];
    let policy = Policy::default();
    choose(&Situation { committed, allowance: 0.0, ..two_drafters(costs, &policy, &candidates) })
}

#[test]
fn what_a_drafter_has_to_read_first_must_be_worth_it() {
    let costs = slow_to_read(costs(0.85));
    let mode = |unread, committed| decide_unread(&costs, unread, committed).mode();
    assert_eq!(mode(0, 100), Mode::Speculate);
    assert_eq!(mode(1000, 100), Mode::Decode, "half a second is eighty tokens");
    assert_eq!(mode(1000, 400), Mode::Speculate, "four hundred more are to be expected");
}

#[test]
fn a_drafter_reads_while_the_server_decodes_if_that_is_all_that_speaks_against_it() {
    let reads = |acceptance| decide_unread(&slow_to_read(costs(acceptance)), 1000, 100).prepare;
    assert!(reads(0.85));
    assert!(!reads(0.0), "it would not pay anyway");
    assert!(!decide(&costs(0.85), 128.0, Some(Mode::Decode), 0.0).prepare, "nor in a crowd");
}

#[test]
fn near_the_break_even_a_rollout_stays_what_it_is() {
    let costs = costs(0.85);
    let rates = |rollouts: u32| {
        let choice = decide(&costs, f64::from(rollouts), None, 0.0);
        choice.bet_rate.unwrap() / choice.decode_rate.unwrap()
    };
    let even = (8..200).find(|rollouts| rates(*rollouts) < 1.2).unwrap();
    assert!(rates(even) > 1.04, "the rates change smoothly");
    assert_eq!(decide(&costs, f64::from(even), Some(Mode::Speculate), 0.0).mode(), Mode::Speculate);
    assert_eq!(decide(&costs, f64::from(even), Some(Mode::Decode), 0.0).mode(), Mode::Decode);
}

#[test]
fn decoding_is_measured_first() {
    let choice = decide(&Costs::default(), 1.0, None, 100.0);
    assert_eq!((choice.mode(), choice.reason, choice.at_least), (Mode::Decode, Reason::Unmeasured, TO_MEASURE));
}

#[test]
fn a_rollout_whose_drafts_are_rejected_more_than_others_decodes() {
    let costs = costs(0.85);
    let policy = Policy::default();
    let candidates = |hazard| [Candidate { hazard, ..CANDIDATE }];
    let mode = |candidates: &[Candidate<'_>]| {
        choose(&Situation {
            policy: &policy,
            costs: &costs,
            plan: PLAN,
            greedy: true,
            rollouts: 1.0,
            speculating: 0.0,
            committed: 0,
            context: 1000,
            room: 400,
            candidates,
            mode: None,
            allowance: 0.0,
            joint_allowance: 0.0,
            undecided: 0.0,
        })
        .mode()
    };
    assert_eq!(mode(&candidates(1.0)), Mode::Speculate);
    assert_eq!(mode(&candidates(6.0)), Mode::Decode);
}

#[test]
fn the_server_computes_the_open_block_and_the_drafts() {
    assert_eq!(new_tokens(Strategy::CachedSuffix, 33, 4, Some(16)), 5.0);
    assert_eq!(new_tokens(Strategy::CachedSuffix, 32, 4, Some(16)), 20.0);
    assert_eq!(new_tokens(Strategy::PromptLogprobs, 32, 4, Some(16)), 36.0);
    assert_eq!(new_tokens(Strategy::FanOut, 33, 2, Some(16)), 6.0);
    let all = (33..49).map(|context| new_tokens(Strategy::CachedSuffix, context, 4, Some(16)));
    assert_eq!(usual_new_tokens(Strategy::CachedSuffix, 40, 4, Some(16), 0.0), all.sum::<f64>() / 16.0);
}

/// Four rollouts on a server for which a token that is verified is a third of the work of a decoded one, and a proposal
/// that costs nothing. `rounds` of it have brought half of what was foreseen.
fn a_detour(drafts: usize, mode: Option<Mode>, rounds: usize) -> Choice {
    let mut costs = Costs::default();
    costs.observe(Measurement::Decoded { load: 4.0, interval: 0.044, tokens: 40.0 });
    for index in 0..60_u32 {
        let new_tokens = f64::from(index % 30 + 8);
        let seconds = 0.008 + 0.022 + 0.044 + 0.0038 * new_tokens;
        let (strategy, company) = (Strategy::CachedSuffix, Company { speculating: 1.0, decoding: 3.0 });
        costs.observe(Measurement::Verified { strategy, company, new_tokens, elsewhere: 0.0, seconds });
    }
    let judged = |_| Judged { position: 0, confidence: Some(0.97), accepted: true };
    costs.observe(Measurement::Judged { drafter: 0, drafts: (0..600).map(judged).collect() });
    let company = Company { speculating: 1.0, decoding: 3.0 };
    let round = Measurement::Round { drafter: 0, company, tokens: 10, foreseen: 20.0 };
    (0..rounds).for_each(|_| costs.observe(round.clone()));
    let draft = Draft { token: 7, q: DraftDistribution::PointMass, confidence: Some(0.97) };
    let proposal = Proposal { drafts: vec![draft; drafts] };
    let ready = Some(&proposal);
    let candidates = [Candidate { longest: 64, is_at_hand: true, ready, ..CANDIDATE }];
    let (policy, speculating) = (Policy::default(), f64::from(u8::from(mode == Some(Mode::Speculate))));
    let situation = two_drafters(&costs, &policy, &candidates);
    choose(&Situation { rollouts: 4.0, speculating, mode, allowance: 0.0, ..situation })
}

#[test]
fn a_stream_in_a_crowd_is_left_only_for_what_makes_up_for_the_way_back() {
    let mode = |drafts, mode| a_detour(drafts, Some(mode), 0).mode();
    assert_eq!(mode(64, Mode::Decode), Mode::Speculate);
    let short = a_detour(12, Some(Mode::Decode), 0);
    assert!(short.bet_rate > short.decode_rate.map(|rate| 1.25 * rate), "it looks good: {short:?}");
    assert_eq!(short.mode(), Mode::Decode, "{short:?}");
    assert_eq!(mode(12, Mode::Speculate), Mode::Speculate, "who has left already may as well");
}

#[test]
fn what_brings_less_than_foreseen_among_others_that_decode_is_taken_for_what_it_brings() {
    let mode = |drafts, rounds| a_detour(drafts, Some(Mode::Decode), rounds).mode();
    assert_eq!((mode(32, 0), mode(32, 40)), (Mode::Speculate, Mode::Decode));
}

#[test]
fn no_trial_is_worth_another_drafters_drafts() {
    let (costs, policy) = (costs(0.0), Policy::default());
    let reason = |is_veiled| {
        let candidate = Candidate { is_at_hand: true, is_veiled, ..CANDIDATE };
        choose(&two_drafters(&costs, &policy, &[candidate])).reason
    };
    assert_eq!((reason(false), reason(true)), (Reason::Explore, Reason::Fastest));
}
