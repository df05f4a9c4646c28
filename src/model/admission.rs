//! Which jobs get pages, and who loses them for it.
//!
//! A job gets every page that it can come to need before its first row runs, or none. Jobs that somebody waits for are
//! admitted in the order of their arrival, and none before an earlier one. So none waits for ever, and two long prompts
//! cannot hold half of the pages each and wait for the other half:
//! 1. An admitted job that somebody waits for needs no more pages, takes a part in passes until it is done (see
//!    [`super::schedule`]) and loses none before.
//! 2. The first job that is not admitted may have the pages of every sequence but those. So once they are done, which
//!    takes a bounded number of passes, there is nothing that it could not have.
//! 3. No context is longer than all pages together ([`super::ModelError::ContextTooLong`]), so that is enough.
//!
//! What nobody waits for is admitted in the same manner while nobody waits for anything, and gives its pages back as soon
//! as somebody who waits needs them.

use super::schedule::Slots;
use super::slot::Slot;

/// The order of admission: what somebody waits for first, then by arrival.
pub(super) type Turn = (bool, u64);

impl Slot {
    /// When its job's turn is; none if it has nothing to do.
    pub(super) fn turn(&self) -> Option<Turn> {
        let work = self.work().filter(|_| self.pending() > 0)?;
        Some((work.is_background(), work.arrival))
    }

    /// Whether a job whose turn is `turn` may have its pages, and then how soon they go: those of idle sequences first,
    /// the one least recently used at the very first; then of those that come latest.
    fn yields_to(&self, turn: Turn) -> Option<(bool, u64)> {
        match self.turn() {
            None => Some((false, self.last_used)),
            Some(own) => {
                let keeps = self.admitted && own.0 == turn.0;
                (own > turn && !keeps).then_some((true, u64::MAX - own.1))
            }
        }
    }
}

impl Slots {
    /// Gives the sequence's job all pages that it can come to need, if they can be had; then says so.
    pub(super) fn admit(&mut self, sequence: u64, turn: Turn) -> bool {
        let Some(slot) = self.slots.get_mut(&sequence) else { return false };
        self.counters.recalled += slot.recall(&mut self.pool) as u64;
        loop {
            let Some(slot) = self.slots.get_mut(&sequence) else { return false };
            if slot.reserve(&mut self.pool) {
                return true;
            }
            if !self.evict_for(turn) {
                return false;
            }
        }
    }

    /// Takes the pages of one sequence, if there is one that has to give them to a job whose turn is `turn`.
    fn evict_for(&mut self, turn: Turn) -> bool {
        let holding = self.slots.values_mut().filter(|slot| !slot.table.pages().is_empty());
        let victim = holding.filter_map(|slot| Some((slot.yields_to(turn)?, slot))).min_by_key(|(order, _)| *order);
        victim.is_some_and(|(_, slot)| {
            slot.evict(&mut self.pool);
            self.counters.evictions += 1;
            true
        })
    }
}
