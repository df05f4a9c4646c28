//! What the model thread knows of each sequence, and which rows its next pass takes.

use std::collections::BTreeMap;
use std::sync::Weak;

use super::cache::KvCache;
use super::forward::Feed;
use super::job::{Job, Work};
use crate::speculation::TokenId;

/// Passes that nobody waits for take this share of the rows, so that whoever comes meanwhile waits for a short one.
const BACKGROUND_SHARE: usize = 4;

/// One sequence, as the model thread knows it.
pub(super) struct Slot {
    /// Dead once the sequence's owner has dropped it.
    alive: Weak<()>,
    /// The context, as last told.
    told: Vec<TokenId>,
    pub(super) cache: KvCache,
    pub(super) work: Option<Work>,
    last_used: u64,
}

impl Slot {
    /// Tokens of context and drafts that the job wants in the cache, minus those in it.
    fn pending(&self) -> usize {
        let wanted = match &self.work {
            Some(work) if work.is_prepare() => self.told.len() - 1,
            Some(work) if !work.is_over() => self.told.len() + work.drafted().len(),
            _ => 0,
        };
        wanted.saturating_sub(self.cache.len())
    }

    /// The next `rows` of the pending tokens.
    pub(super) fn feed(&mut self, rows: usize) -> Feed<'_> {
        let drafted = self.work.iter().flat_map(Work::drafted);
        let tokens = self.told.iter().copied().chain(drafted).skip(self.cache.len()).take(rows).collect();
        let logits = self.work.as_ref().is_some_and(Work::wants_logits) && rows == self.pending();
        Feed { cache: &mut self.cache, tokens, logits }
    }

    /// Whether somebody waits for its job.
    fn is_awaited(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.is_background())
    }

    /// Whether all that a [`Job::Prepare`] wanted is done.
    fn is_prepared(&self) -> bool {
        self.work.as_ref().is_some_and(Work::is_prepare) && self.pending() == 0
    }
}

/// All sequences.
pub(super) struct Slots {
    slots: BTreeMap<u64, Slot>,
    /// Sequences that may hold a cache.
    max_resident: usize,
    /// Counts jobs and passes: the order of events, not their time.
    clock: u64,
}

impl Slots {
    pub(super) fn new(max_resident: usize) -> Self {
        Self { slots: BTreeMap::new(), max_resident: max_resident.max(1), clock: 0 }
    }

    /// Tells a sequence its context, the first `keep` tokens of the previous one and then `append`, and gives it a
    /// job in place of whatever it did before, whose drafts it takes over where it continues them: returns how many.
    /// The context is not empty.
    pub(super) fn assign(
        &mut self,
        sequence: u64,
        alive: Weak<()>,
        keep: usize,
        append: &[TokenId],
        job: Job,
        new_cache: impl FnOnce() -> KvCache,
    ) -> usize {
        self.clock += 1;
        let slot = self.slots.entry(sequence).or_insert_with(|| Slot {
            alive,
            told: Vec::new(),
            cache: new_cache(),
            work: None,
            last_used: self.clock,
        });
        let ahead = slot.work.take().filter(|_| keep == slot.told.len());
        let handed_over = ahead.map_or_else(Vec::new, |work| work.hand_over(&job, append));
        slot.told.truncate(keep);
        slot.told.extend_from_slice(append);
        slot.last_used = self.clock;
        let mut work = Work::new(job, self.clock);
        let complete = handed_over.into_iter().any(|draft| work.push(draft));
        let used = work.drafted().len();
        // The cache may hold drafts of the last job: those that the context now confirms, or this one begins with,
        // stay. The logits after the last token are wanted, so that one is run again.
        let tokens = slot.told.len() + used;
        let common = common_prefix(slot.cache.tokens(), slot.told.iter().copied().chain(work.drafted()));
        slot.cache.truncate(common.min(tokens - 1));
        if complete {
            work.answer(&[], None);
        } else {
            slot.work = Some(work);
            if slot.is_prepared() {
                slot.work = None;
            }
        }
        used
    }

    /// Forgets sequences whose owner is gone and jobs whose caller is.
    pub(super) fn sweep(&mut self) {
        self.slots.retain(|_, slot| slot.alive.strong_count() > 0);
        for slot in self.slots.values_mut() {
            if slot.is_prepared() || slot.work.as_ref().is_some_and(Work::is_abandoned) {
                slot.work = None;
            }
        }
    }

    /// Whether no sequence has anything to do.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.pending() == 0)
    }

    /// Sequences that hold a cache.
    pub(super) fn resident(&self) -> usize {
        self.slots.values().filter(|slot| !slot.cache.is_empty()).count()
    }

    /// Chooses rows for the next pass, at most `budget`: single rows first, since a draft waits for each of them,
    /// then prefills that someone waits for. What nobody waits for has passes of its own, and only where nobody waits
    /// for anything else. Drops caches where room is needed; a job that finds no room waits for one that has it.
    pub(super) fn plan(&mut self, budget: usize) -> BTreeMap<u64, usize> {
        self.clock += 1;
        let mut waiting: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.pending() > 0)
            .filter_map(|(id, slot)| {
                let work = slot.work.as_ref()?;
                Some((work.is_background(), slot.pending() > 1, work.arrival, *id))
            })
            .collect();
        waiting.sort_unstable();
        let Some(&(background, ..)) = waiting.first() else { return BTreeMap::new() };
        let mut left = if background { budget / BACKGROUND_SHARE } else { budget }.max(1);
        let mut resident = self.resident();
        let mut plan = BTreeMap::new();
        for (.., id) in waiting.into_iter().filter(|(other, ..)| *other == background) {
            if left == 0 {
                break;
            }
            if self.slots.get(&id).is_some_and(|slot| slot.cache.is_empty()) {
                if resident >= self.max_resident && !self.evict(background) {
                    continue;
                }
                resident = (resident + 1).min(self.max_resident);
            }
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.last_used = self.clock;
                let rows = slot.pending().min(left);
                left -= rows;
                plan.insert(id, rows);
            }
        }
        plan
    }

    /// Drops the cache of the idle sequence that was used least recently; if none is idle and the room is for somebody
    /// who waits, that of one for which nobody does.
    fn evict(&mut self, for_background: bool) -> bool {
        let idle = |slot: &Slot| slot.pending() == 0;
        let held = self.slots.values_mut().filter(|slot| !slot.cache.is_empty() && !slot.is_awaited());
        let victim = held.filter(|slot| idle(slot) || !for_background).min_by_key(|slot| (!idle(slot), slot.last_used));
        victim.is_some_and(|slot| {
            slot.cache.release();
            true
        })
    }

    /// The planned sequences, in the order of their ids, with their rows.
    pub(super) fn planned<'a>(
        &'a mut self,
        plan: &'a BTreeMap<u64, usize>,
    ) -> impl Iterator<Item = (&'a mut Slot, usize)> + 'a {
        self.slots.iter_mut().filter_map(|(id, slot)| plan.get(id).map(|rows| (slot, *rows)))
    }
}

/// How many tokens two contexts begin with in common.
pub(super) fn common_prefix(a: &[TokenId], b: impl IntoIterator<Item = TokenId>) -> usize {
    a.iter().zip(b).take_while(|(a, b)| **a == *b).count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::super::sample::{DraftSampling, DraftedToken};
    use super::*;

    fn assign(slots: &mut Slots, sequence: u64, alive: &Arc<()>, tokens: usize, job: Job) {
        let tokens: Vec<TokenId> = (0..tokens as TokenId).collect();
        slots.assign(sequence, Arc::downgrade(alive), 0, &tokens, job, || KvCache::new(1, 1, 2));
    }

    fn awaited() -> (Job, oneshot::Receiver<Result<Vec<DraftedToken>, super::super::error::ModelError>>) {
        let (reply, answer) = oneshot::channel();
        (Job::Draft { sampling: DraftSampling::new(5, 0.0), reply }, answer)
    }

    /// What the plan's rows leave behind: they are in the cache, and a draft comes of those that end a context.
    fn run(slots: &mut Slots, plan: &BTreeMap<u64, usize>) {
        for (slot, rows) in slots.planned(plan) {
            let Feed { cache, tokens, logits } = slot.feed(rows);
            cache.extend_tokens(&tokens);
            if logits && let Some(work) = &mut slot.work {
                work.push(DraftedToken { token: 0, distribution: None, confidence: 1.0 });
            }
        }
    }

    #[test]
    fn what_nobody_waits_for_runs_only_while_nobody_waits() {
        let (mut slots, alive) = (Slots::new(8), Arc::new(()));
        let ahead = || Job::Ahead { sampling: DraftSampling::new(100, 0.0) };
        assign(&mut slots, 1, &alive, 6, ahead());
        assign(&mut slots, 2, &alive, 40, Job::Prepare);
        assign(&mut slots, 3, &alive, 10, ahead());
        // A quarter of the rows, so that nobody who comes meanwhile waits for long.
        let plan = slots.plan(64);
        assert_eq!(plan, BTreeMap::from([(1, 6), (2, 10)]));
        run(&mut slots, &plan);
        let (job, answer) = awaited();
        assign(&mut slots, 4, &alive, 20, job);
        // Prompt and drafts of the one that is waited for, pass by pass, and nothing else until it is done.
        for rows in [20, 1, 1, 1, 1] {
            let plan = slots.plan(64);
            assert_eq!(plan, BTreeMap::from([(4, rows)]));
            run(&mut slots, &plan);
        }
        drop(answer);
        slots.sweep();
        assert_eq!(slots.plan(64), BTreeMap::from([(1, 1), (2, 15)]));
    }

    #[test]
    fn who_waits_takes_the_room_of_who_does_not() {
        let (mut slots, alive) = (Slots::new(1), Arc::new(()));
        assign(&mut slots, 1, &alive, 6, Job::Ahead { sampling: DraftSampling::new(100, 0.0) });
        let plan = slots.plan(64);
        run(&mut slots, &plan);
        assign(&mut slots, 2, &alive, 4, Job::Prepare);
        assert_eq!(slots.plan(64), BTreeMap::from([(1, 1)]), "both can wait, and one has the room");
        let (job, _answer) = awaited();
        assign(&mut slots, 3, &alive, 5, job);
        let plan = slots.plan(64);
        assert_eq!(plan, BTreeMap::from([(3, 5)]));
        run(&mut slots, &plan);
        assert_eq!(slots.resident(), 1);
        let (job, _answer) = awaited();
        assign(&mut slots, 4, &alive, 5, job);
        assert_eq!(slots.plan(64), BTreeMap::from([(3, 1)]), "one that is waited for keeps its room");
    }
}
