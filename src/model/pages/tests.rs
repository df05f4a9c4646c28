//! What holds of page tables, whatever is done to them.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn text(length: usize) -> Vec<TokenId> {
    (0..length as TokenId).collect()
}

/// Brings a table to hold all of `tokens`, and says how many had to be computed.
fn hold(pool: &mut PagePool, table: &mut PageTable, tokens: &[TokenId]) -> usize {
    let found = pool.recall(table, tokens[table.len()..].iter().copied());
    assert!(pool.reserve(table, tokens.len()));
    let missing = tokens.len() - table.len();
    pool.extend(table, tokens[table.len()..].iter().copied());
    assert!(found.is_multiple_of(PAGE));
    missing
}

fn tables<const N: usize>() -> [PageTable; N] {
    std::array::from_fn(|_| PageTable::default())
}

#[test]
fn full_pages_are_shared_as_far_as_all_tokens_are_the_same() {
    let (mut pool, [mut a, mut b, mut c, mut d]) = (PagePool::new(20), tables());
    assert_eq!(hold(&mut pool, &mut a, &text(40)), 40);
    assert_eq!(hold(&mut pool, &mut b, &text(40)), 8);
    let mut other = text(40);
    other[31] = 99;
    assert_eq!(hold(&mut pool, &mut c, &other), 24, "the last token of its second page differs");
    // The same tokens after other ones are another page.
    other[..16].reverse();
    other[16..32].copy_from_slice(&text(32)[16..]);
    assert_eq!(hold(&mut pool, &mut d, &other), 40);
    assert_eq!(a.pages()[..2], b.pages()[..2]);
    assert_eq!(a.pages()[..1], c.pages()[..1]);
    assert_eq!(pool.held(), 2 + 2 + 2 + 3);
}

#[test]
fn a_page_filled_twice_is_kept_once() {
    let (mut pool, [mut a, mut b]) = (PagePool::new(20), tables());
    for table in [&mut a, &mut b] {
        assert!(pool.reserve(table, 35));
        pool.extend(table, text(10));
    }
    for table in [&mut a, &mut b] {
        pool.extend(table, text(35).split_off(10));
    }
    assert_eq!(a.pages()[..2], b.pages()[..2]);
    assert_eq!(pool.held(), 4);
}

#[test]
fn what_was_released_is_found_until_its_page_is_needed() {
    let (mut pool, [mut a, mut b, mut c]) = (PagePool::new(4), tables());
    hold(&mut pool, &mut a, &text(50));
    pool.clear(&mut a);
    assert_eq!(pool.held(), 0);
    // Two of the three full pages stay: the end is given up first.
    hold(&mut pool, &mut b, &[7; 20]);
    assert_eq!(hold(&mut pool, &mut a, &text(32)), 0);
    assert!(!pool.reserve(&mut c, 1), "four are held");
    pool.clear(&mut b);
    pool.clear(&mut a);
    assert_eq!(hold(&mut pool, &mut c, &text(64)), 32);
}

#[test]
fn pages_released_longest_ago_go_first() {
    let (mut pool, [mut a, mut b, mut c]) = (PagePool::new(3), tables());
    hold(&mut pool, &mut a, &[1; 16]);
    hold(&mut pool, &mut b, &[2; 16]);
    pool.clear(&mut a);
    pool.clear(&mut b);
    // Used again, it is the younger one.
    hold(&mut pool, &mut a, &[1; 16]);
    pool.clear(&mut a);
    hold(&mut pool, &mut c, &[3; 32]);
    assert_eq!(hold(&mut pool, &mut a, &[1; 16]), 0);
    pool.clear(&mut c);
    assert_eq!(hold(&mut pool, &mut b, &[2; 16]), 16);
}

#[test]
fn a_cut_goes_through_an_own_page_and_before_a_shared_one() {
    let (mut pool, [mut a, mut b]) = (PagePool::new(20), tables());
    hold(&mut pool, &mut a, &text(40));
    pool.truncate(&mut a, 20);
    assert_eq!((a.len(), pool.held()), (20, 2));
    hold(&mut pool, &mut b, &text(40));
    assert_eq!(hold(&mut pool, &mut a, &text(40)), 20, "what was cut is not known by its old name");
    pool.truncate(&mut a, 20);
    assert_eq!(a.len(), 16, "b holds the page too");
    assert_eq!(b.tokens(), text(40));
    pool.truncate(&mut b, 32);
    assert_eq!((b.len(), pool.held()), (32, 2));
}

#[test]
fn a_rejected_page_does_not_push_out_a_known_one() {
    let (mut pool, [mut a, mut b]) = (PagePool::new(4), tables());
    hold(&mut pool, &mut b, &[9; 16]);
    pool.clear(&mut b);
    hold(&mut pool, &mut a, &text(14));
    // Drafts that fill pages and are rejected, round after round.
    for round in 0..20 {
        let drafts: Vec<TokenId> = text(14).into_iter().chain([100 + round; 30]).collect();
        hold(&mut pool, &mut a, &drafts);
        pool.truncate(&mut a, 14);
    }
    assert_eq!(hold(&mut pool, &mut b, &[9; 16]), 0);
}

#[test]
fn reserving_is_all_or_nothing() {
    let (mut pool, [mut a, mut b]) = (PagePool::new(4), tables());
    assert!(pool.reserve(&mut a, 3 * PAGE));
    assert!(!pool.reserve(&mut b, 2 * PAGE));
    assert_eq!((b.pages().len(), pool.held()), (0, 3));
    pool.truncate(&mut a, 0);
    assert!(pool.reserve(&mut b, 4 * PAGE));
}

/// One step of a table's life.
#[derive(Debug, Clone)]
enum Step {
    /// Continue by tokens, recalled where they are known.
    Hold(usize, Vec<TokenId>),
    /// The same without asking what is known.
    Compute(usize, Vec<TokenId>),
    /// Reserve for so many positions more.
    Reserve(usize, usize),
    /// Cut to this share of the length, in 16ths.
    Truncate(usize, usize),
    Clear(usize),
}

const TABLES: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    // Few tokens, so that contexts are alike often.
    let tokens = || vec(prop_oneof![20 => Just(0u32), 1 => Just(1u32)], 1..40);
    prop_oneof![
        4 => (0..TABLES, tokens()).prop_map(|(table, tokens)| Step::Hold(table, tokens)),
        2 => (0..TABLES, tokens()).prop_map(|(table, tokens)| Step::Compute(table, tokens)),
        1 => (0..TABLES, 0..40usize).prop_map(|(table, more)| Step::Reserve(table, more)),
        4 => (0..TABLES, 0..=16usize).prop_map(|(table, share)| Step::Truncate(table, share)),
        1 => (0..TABLES).prop_map(Step::Clear),
    ]
}

/// What a backend would have in memory: the whole text that each position was computed after, itself included.
type Memory = HashMap<(PageId, usize), Vec<TokenId>>;

fn compute(pool: &mut PagePool, table: &mut PageTable, tokens: &[TokenId], memory: &mut Memory) {
    let mut text = table.tokens().to_vec();
    for token in tokens {
        text.push(*token);
        let position = text.len() - 1;
        memory.insert((table.pages()[position / PAGE], position % PAGE), text.clone());
    }
    pool.extend(table, tokens.iter().copied());
}

proptest! {
    #[test]
    fn every_table_finds_in_its_pages_what_it_would_compute(steps in vec(step(), 1..120), total in 3..30usize) {
        let (mut pool, mut tables, mut memory) = (PagePool::new(total), tables::<TABLES>(), Memory::new());
        for step in steps {
            match step {
                Step::Hold(table, tokens) => {
                    let table = &mut tables[table];
                    let found = pool.recall(table, tokens.iter().copied());
                    if pool.reserve(table, table.len() + tokens.len() - found) {
                        compute(&mut pool, table, &tokens[found..], &mut memory);
                    }
                }
                Step::Compute(table, tokens) => {
                    let table = &mut tables[table];
                    if pool.reserve(table, table.len() + tokens.len()) {
                        compute(&mut pool, table, &tokens, &mut memory);
                    }
                }
                Step::Reserve(table, more) => {
                    let table = &mut tables[table];
                    pool.reserve(table, table.len() + more);
                }
                Step::Truncate(table, share) => {
                    let table = &mut tables[table];
                    let length = table.len() * share / 16;
                    pool.truncate(table, length);
                    prop_assert!(table.len() <= length && table.len() + PAGE > length);
                }
                Step::Clear(table) => pool.clear(&mut tables[table]),
            }
            let mut held: Vec<PageId> = tables.iter().flat_map(|table| table.pages().iter().copied()).collect();
            held.sort_unstable();
            held.dedup();
            prop_assert_eq!(held.len(), pool.held());
            prop_assert!(pool.held() <= total);
            for table in &tables {
                for position in 0..table.len() {
                    let found = memory.get(&(table.pages()[position / PAGE], position % PAGE));
                    prop_assert_eq!(found.map(Vec::as_slice), Some(&table.tokens()[..=position]));
                }
            }
        }
    }
}
