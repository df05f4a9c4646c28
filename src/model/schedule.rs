//! All sequences, and which rows the next pass takes.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::backend::Outcome;
use super::job::{Answer, Job};
use super::pages::PagePool;
use super::slot::Slot;
use crate::speculation::TokenId;

/// Passes that nobody waits for take this share of the rows, so that whoever comes meanwhile waits for a short one.
const BACKGROUND_SHARE: usize = 4;

/// The oldest job gets at least this share of the rows, however many later ones there are.
const OLDEST_SHARE: usize = 4;

/// All sequences.
pub(super) struct Slots {
    pub(super) slots: BTreeMap<u64, Slot>,
    pub(super) pool: PagePool,
    pub(super) counters: Counters,
    /// To be sent once the counters are published.
    pub(super) answers: Vec<Answer>,
    /// Counts jobs and passes: the order of events, not their time.
    clock: u64,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Sequences that lost their pages to another.
    pub(super) evictions: u64,
    /// Tokens that were not computed, since a page that holds them was there.
    pub(super) recalled: u64,
    /// Drafts drawn ahead that became part of an answer.
    pub(super) used_ahead: u64,
    /// Rows that went through the model.
    pub(super) rows: u64,
}

impl Slots {
    /// No sequences yet, and so many pages for them.
    pub(super) fn new(pages: usize) -> Self {
        let (pool, counters) = (PagePool::new(pages), Counters::default());
        Self { slots: BTreeMap::new(), pool, counters, answers: Vec::new(), clock: 0 }
    }

    /// Tells a sequence its context and gives it a job, as [`Slot::assign`] says. What was still queued when the
    /// sequence's owner went is dropped: it may continue a context that is forgotten.
    pub(super) fn assign(&mut self, sequence: u64, alive: Weak<()>, keep: usize, append: &[TokenId], job: Job) {
        self.clock += 1;
        if alive.strong_count() == 0 {
            return;
        }
        let slot = self.slots.entry(sequence).or_insert_with(|| Slot::new(alive));
        let (used, answer) = slot.assign(keep, append, job, self.clock, &mut self.pool);
        self.counters.used_ahead += used as u64;
        self.answers.extend(answer);
    }

    /// Forgets sequences whose owner is gone and jobs whose caller is.
    pub(super) fn sweep(&mut self) {
        for (_, mut slot) in self.slots.extract_if(.., |_, slot| !slot.is_owned()) {
            slot.evict(&mut self.pool);
        }
        for slot in self.slots.values_mut() {
            slot.rest(&mut self.pool);
        }
    }

    /// Whether no sequence has anything to do.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.pending() == 0)
    }

    /// Sequences that hold keys and values.
    pub(super) fn resident(&self) -> usize {
        self.slots.values().filter(|slot| slot.table.len() > 0).count()
    }

    /// Chooses rows for the next pass, at most `budget`: a share for the oldest job, so that all come to an end; then
    /// single rows, since a draft waits for each of them; then prefills that someone waits for. What nobody waits for has
    /// passes of its own, and only where nobody waits for anything else. Only jobs that have their pages take part.
    pub(super) fn plan(&mut self, budget: usize) -> BTreeMap<u64, usize> {
        self.clock += 1;
        let ready = self.ready();
        let mut plan = BTreeMap::new();
        let Some(&(background, oldest)) = ready.first() else { return plan };
        let mut left = if background { budget / BACKGROUND_SHARE } else { budget }.max(1);
        let share = (left / OLDEST_SHARE).max(1);
        let is_single = |id: &u64| self.slots.get(id).is_some_and(|slot| slot.pending() == 1);
        let ids = || ready.iter().map(|(_, id)| *id);
        let singles: Vec<u64> = ids().filter(is_single).collect();
        let wishes = std::iter::once((oldest, share)).chain(singles.into_iter().map(|id| (id, 1)));
        for (id, most) in wishes.chain(ids().map(|id| (id, usize::MAX))) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let rows = plan.entry(id).or_insert(0);
            let more = (slot.pending() - *rows).min(most).min(left);
            *rows += more;
            left -= more;
            slot.last_used = self.clock;
        }
        plan.retain(|_, rows| *rows > 0);
        plan
    }

    /// Jobs that have their pages, in the order of their turns: all that somebody waits for or, if there is none, all
    /// others. Admits what can be. Each is brought as far as known pages go.
    fn ready(&mut self) -> Vec<(bool, u64)> {
        let turns = self.slots.iter().filter_map(|(id, slot)| Some((slot.turn()?, slot.admitted, *id)));
        let mut turns: Vec<_> = turns.collect();
        turns.sort_unstable();
        let Some(&((background, _), ..)) = turns.first() else { return Vec::new() };
        let mut all_admitted = true;
        let mut ready = Vec::new();
        for (turn, admitted, id) in turns.into_iter().take_while(|(turn, ..)| turn.0 == background) {
            if admitted {
                // Others may have computed since what comes next here.
                let recalled = self.slots.get_mut(&id).map_or(0, |slot| slot.recall(&mut self.pool));
                self.counters.recalled += recalled as u64;
            }
            all_admitted &= admitted || all_admitted && self.admit(id, turn);
            if admitted || all_admitted {
                ready.push((background, id));
            }
        }
        // One that known pages brought to its end may have lost its pages to a later one already.
        ready.retain(|(_, id)| self.slots.get(id).is_some_and(|slot| slot.admitted));
        ready
    }

    /// The planned sequences, in the order of their ids, with their rows.
    pub(super) fn planned<'a>(
        &'a self,
        plan: &'a BTreeMap<u64, usize>,
    ) -> impl Iterator<Item = (&'a Slot, usize)> + 'a {
        plan.iter().filter_map(|(id, rows)| Some((self.slots.get(id)?, *rows)))
    }

    /// Notes what came of a sequence's `tokens`.
    pub(super) fn advance(&mut self, sequence: u64, tokens: &[TokenId], outcome: Outcome) {
        if let Some(slot) = self.slots.get_mut(&sequence) {
            let (rows, answer) = slot.advance(tokens, outcome, &mut self.pool);
            self.counters.rows += rows as u64;
            self.answers.extend(answer);
        }
    }
}

#[cfg(test)]
mod tests;
