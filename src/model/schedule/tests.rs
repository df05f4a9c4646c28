//! Who gets pages and rows, without a model.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::backend::{PAGE, Then};
use super::super::error::ModelError;
use super::super::sample::{DraftSampling, DraftedToken};
use super::*;

type Drafts = oneshot::Receiver<Result<Vec<DraftedToken>, ModelError>>;

/// Gives `sequence` a context of `length` tokens that no other begins with.
fn assign(slots: &mut Slots, sequence: u64, alive: &Arc<()>, length: usize, job: Job) {
    let tokens: Vec<TokenId> = (0..length as TokenId).map(|token| token + 1000 * sequence as TokenId).collect();
    slots.assign(sequence, Arc::downgrade(alive), 0, &tokens, job);
}

fn awaited(drafts: usize) -> (Job, Drafts) {
    let (reply, answer) = oneshot::channel();
    (Job::Draft { sampling: DraftSampling::new(drafts, 0.0), reply }, answer)
}

fn ahead(drafts: usize) -> Job {
    Job::Ahead { sampling: DraftSampling::new(drafts, 0.0) }
}

fn draft(token: TokenId) -> DraftedToken {
    DraftedToken { token, distribution: None, confidence: 1.0 }
}

/// What the plan's rows leave behind: a draft comes of those that end a context.
fn run(slots: &mut Slots, plan: &BTreeMap<u64, usize>) {
    for (id, rows) in plan {
        let slot = &slots.slots[id];
        let tokens = slot.next_tokens(*rows);
        let outcome = match slot.then(*rows) {
            Then::Draft { .. } => Outcome::Drafts(vec![draft(0)]),
            Then::Nothing => Outcome::Nothing,
            Then::Logits => Outcome::Logits(Vec::new()),
        };
        slots.advance(*id, &tokens, outcome);
    }
    slots.answers.drain(..).for_each(Answer::send);
    slots.sweep();
}

/// Passes until nothing is left to do.
fn finish(slots: &mut Slots, rows: usize) -> usize {
    let mut passes = 0;
    while !slots.is_idle() {
        let plan = slots.plan(rows);
        run(slots, &plan);
        passes += 1;
        assert!(!plan.is_empty() || slots.is_idle(), "nothing moves");
        assert!(passes < 100_000, "no end");
    }
    passes
}

#[test]
fn what_nobody_waits_for_runs_only_while_nobody_waits() {
    let (mut slots, alive) = (Slots::new(100), Arc::new(()));
    assign(&mut slots, 1, &alive, 6, ahead(100));
    assign(&mut slots, 2, &alive, 40, Job::Prepare);
    assign(&mut slots, 3, &alive, 10, ahead(100));
    // A quarter of the rows, so that nobody who comes meanwhile waits for long.
    let plan = slots.plan(64);
    assert_eq!(plan, BTreeMap::from([(1, 6), (2, 10)]));
    run(&mut slots, &plan);
    let (job, answer) = awaited(5);
    assign(&mut slots, 4, &alive, 20, job);
    // Prompt and drafts of the one that is waited for, pass by pass, and nothing else until it is done.
    for rows in [20, 1, 1, 1, 1] {
        let plan = slots.plan(64);
        assert_eq!(plan, BTreeMap::from([(4, rows)]));
        run(&mut slots, &plan);
    }
    assert_eq!(answer.blocking_recv().unwrap().unwrap().len(), 5);
    assert_eq!(slots.plan(64), BTreeMap::from([(1, 1), (2, 15)]));
}

#[test]
fn the_oldest_goes_on_however_many_single_rows_there_are() {
    let (mut slots, alive) = (Slots::new(1000), Arc::new(()));
    let (job, _answer) = awaited(1);
    assign(&mut slots, 1, &alive, 100, job);
    let _answers: Vec<_> = (2..50)
        .map(|sequence| {
            let (job, answer) = awaited(5);
            assign(&mut slots, sequence, &alive, 1, job);
            answer
        })
        .collect();
    let plan = slots.plan(32);
    assert_eq!((plan[&1], plan.len(), plan.values().sum::<usize>()), (8, 25, 32));
}

#[test]
fn who_waits_takes_the_pages_of_who_does_not() {
    let (mut slots, alive) = (Slots::new(2), Arc::new(()));
    assign(&mut slots, 1, &alive, 6, ahead(20));
    let plan = slots.plan(64);
    run(&mut slots, &plan);
    assign(&mut slots, 2, &alive, 4, Job::Prepare);
    assert_eq!(slots.plan(64), BTreeMap::from([(1, 1)]), "both can wait, and one has the pages");
    let (job, _answer) = awaited(5);
    assign(&mut slots, 3, &alive, 20, job);
    let plan = slots.plan(64);
    assert_eq!(plan, BTreeMap::from([(3, 20)]));
    run(&mut slots, &plan);
    assert_eq!((slots.resident(), slots.counters.evictions), (1, 1));
    let (job, _answer) = awaited(5);
    assign(&mut slots, 4, &alive, 5, job);
    assert_eq!(slots.plan(64), BTreeMap::from([(3, 1)]), "one that is waited for keeps its pages");
}

#[test]
fn the_idle_sequence_used_least_recently_loses_its_pages() {
    let (mut slots, alive) = (Slots::new(3), Arc::new(()));
    for (sequence, expected) in [(1, [1].as_slice()), (2, &[1, 2]), (3, &[1, 2, 3]), (1, &[1, 2, 3]), (4, &[1, 3, 4])] {
        let (job, _answer) = awaited(1);
        assign(&mut slots, sequence, &alive, 10, job);
        finish(&mut slots, 64);
        let holding = slots.slots.iter().filter(|(_, slot)| slot.table.len() > 0).map(|(id, _)| *id);
        assert_eq!(holding.collect::<Vec<_>>(), expected);
    }
    assert_eq!(slots.counters.evictions, 1);
}

#[test]
fn two_prompts_that_do_not_fit_together_run_one_after_the_other() {
    // Each needs 6 of the 8 pages, and a pass takes a tenth of either.
    let (mut slots, alive) = (Slots::new(8), Arc::new(()));
    let mut answers: Vec<_> = (1..4)
        .map(|sequence| {
            let (job, answer) = awaited(1);
            assign(&mut slots, sequence, &alive, 6 * PAGE, job);
            answer
        })
        .collect();
    for sequence in 1..4 {
        for _ in 0..12 {
            let plan = slots.plan(8);
            assert_eq!(plan, BTreeMap::from([(sequence, 8)]));
            run(&mut slots, &plan);
        }
        assert_eq!(answers.remove(0).blocking_recv().unwrap().unwrap().len(), 1);
    }
    assert!(slots.is_idle());
}

#[test]
fn a_job_that_waits_for_pages_is_not_overtaken_for_ever() {
    // Short jobs come back again and again; each could have its pages at once.
    let (mut slots, alive) = (Slots::new(8), Arc::new(()));
    let short = |slots: &mut Slots, sequence| {
        let (job, answer) = awaited(4);
        assign(slots, sequence, &alive, 20, job);
        answer
    };
    let mut running: Vec<_> = (1..5).map(|sequence| (sequence, short(&mut slots, sequence))).collect();
    let plan = slots.plan(64);
    run(&mut slots, &plan);
    let (job, mut long) = awaited(1);
    assign(&mut slots, 9, &alive, 8 * PAGE, job);
    for passes in 0.. {
        assert!(passes < 100, "it starves");
        let plan = slots.plan(64);
        run(&mut slots, &plan);
        if long.try_recv().is_ok() {
            break;
        }
        for (sequence, answer) in &mut running {
            if answer.try_recv().is_ok() {
                *answer = short(&mut slots, *sequence);
            }
        }
    }
    finish(&mut slots, 64);
    assert!(running.iter_mut().all(|(_, answer)| answer.try_recv().is_ok()));
}

#[test]
fn a_group_computes_its_prompt_once() {
    let (mut slots, alive) = (Slots::new(100), Arc::new(()));
    let prompt: Vec<TokenId> = (0..100).collect();
    let answers: Vec<_> = (0..8)
        .map(|sequence| {
            let (job, answer) = awaited(1);
            slots.assign(sequence, Arc::downgrade(&alive), 0, &prompt, job);
            answer
        })
        .collect();
    finish(&mut slots, 64);
    assert!(answers.into_iter().all(|answer| answer.blocking_recv().unwrap().is_ok()));
    // 6 pages that all hold, and one each for the last 4 tokens. Of the 8, the second began with what the first left of
    // its last pass.
    assert_eq!(slots.pool.held(), 6 + 8);
    assert!(slots.counters.rows < 100 + 7 * 4 + 64, "{:?}", slots.counters);

    // After they have gone, too, while nobody needs the pages.
    drop(alive);
    slots.sweep();
    assert_eq!((slots.pool.held(), slots.resident()), (0, 0));
    let (alive, rows) = (Arc::new(()), slots.counters.rows);
    slots.assign(9, Arc::downgrade(&alive), 0, &prompt, Job::Prepare);
    finish(&mut slots, 64);
    assert_eq!(slots.counters.rows - rows, 3, "a page is taken over whole");
}

#[test]
fn of_several_drafts_those_after_the_last_are_as_if_they_had_not_been() {
    let (mut slots, alive) = (Slots::new(8), Arc::new(()));
    let (reply, answer) = oneshot::channel();
    let sampling = DraftSampling { ends: [7].into(), ..DraftSampling::new(6, 0.0) };
    assign(&mut slots, 1, &alive, 14, Job::Draft { sampling, reply });
    let plan = slots.plan(64);
    let tokens = slots.slots[&1].next_tokens(plan[&1]);
    slots.advance(1, &tokens, Outcome::Drafts([5, 6, 7, 8, 9].map(draft).into()));
    assert_eq!(slots.slots[&1].table.tokens()[14..], [5, 6]);
    slots.answers.drain(..).for_each(Answer::send);
    let drafted = answer.blocking_recv().unwrap().unwrap();
    assert_eq!(drafted.iter().map(|draft| draft.token).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!((slots.counters.rows, slots.pool.held()), (14 + 4, 1), "a page was reserved in vain and goes back");
}

#[test]
fn a_sequence_whose_logits_are_no_numbers_fails_alone() {
    let (mut slots, alive) = (Slots::new(8), Arc::new(()));
    let ((bad, failed), (good, drafted)) = (awaited(1), awaited(1));
    assign(&mut slots, 1, &alive, 3, bad);
    assign(&mut slots, 2, &alive, 3, good);
    let plan = slots.plan(64);
    let tokens = [1, 2].map(|id| slots.slots[&id].next_tokens(plan[&id]));
    slots.advance(1, &tokens[0], Outcome::Drafts(Vec::new()));
    slots.advance(2, &tokens[1], Outcome::Drafts(vec![draft(4)]));
    slots.answers.drain(..).for_each(Answer::send);
    assert!(matches!(failed.blocking_recv().unwrap(), Err(ModelError::NoFiniteLogit)));
    assert_eq!(drafted.blocking_recv().unwrap().unwrap(), [draft(4)]);
}

#[test]
fn what_was_still_queued_when_its_sequence_ended_is_dropped() {
    let (mut slots, alive) = (Slots::new(100), Arc::new(()));
    assign(&mut slots, 1, &alive, 6, Job::Prepare);
    let owner = Arc::downgrade(&alive);
    drop(alive);
    slots.sweep();
    // It continues a context that nobody knows any more.
    let (job, mut answer) = awaited(3);
    slots.assign(1, owner, 6, &[], job);
    assert!(slots.is_idle() && slots.slots.is_empty());
    assert!(answer.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
}
