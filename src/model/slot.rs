//! What the model thread knows of each sequence, and which rows its next pass takes.

use std::collections::BTreeMap;
use std::sync::Weak;

use tokio::sync::oneshot;

use super::cache::KvCache;
use super::error::ModelError;
use super::forward::Feed;
use super::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Where an answer goes. Closed once its caller has gone.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ModelError>>;

/// What a sequence asks for, after its context.
pub(super) enum Job {
    /// Run the context, all but its last token, through the model: the first draft needs the last one's logits.
    Prepare,
    Draft {
        sampling: DraftSampling,
        reply: Reply<Vec<DraftedToken>>,
    },
    /// The logits after the context.
    Logits {
        reply: Reply<Vec<f32>>,
    },
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Prepare => false,
            Self::Draft { reply, .. } => reply.is_closed(),
            Self::Logits { reply } => reply.is_closed(),
        }
    }
}

/// A job under way.
pub(super) struct Work {
    pub(super) job: Job,
    pub(super) drafted: Vec<DraftedToken>,
    /// Jobs are served in order of arrival.
    arrival: u64,
}

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
            None => 0,
            Some(Work { job: Job::Prepare, .. }) => self.told.len() - 1,
            Some(work) => self.told.len() + work.drafted.len(),
        };
        wanted.saturating_sub(self.cache.len())
    }

    /// The next `rows` of the pending tokens.
    pub(super) fn feed(&mut self, rows: usize) -> Feed<'_> {
        let drafted = self.work.iter().flat_map(|work| work.drafted.iter().map(|draft| draft.token));
        let tokens = self.told.iter().copied().chain(drafted).skip(self.cache.len()).take(rows).collect();
        let answers = self.work.as_ref().is_some_and(|work| !matches!(work.job, Job::Prepare));
        let logits = answers && rows == self.pending();
        Feed { cache: &mut self.cache, tokens, logits }
    }

    /// Whether all that a [`Job::Prepare`] wanted is done.
    fn is_prepared(&self) -> bool {
        matches!(self.work, Some(Work { job: Job::Prepare, .. })) && self.pending() == 0
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
    /// job in place of whatever it did before. The context is not empty.
    pub(super) fn assign(
        &mut self,
        sequence: u64,
        alive: Weak<()>,
        keep: usize,
        append: &[TokenId],
        job: Job,
        new_cache: impl FnOnce() -> KvCache,
    ) {
        self.clock += 1;
        let slot = self.slots.entry(sequence).or_insert_with(|| Slot {
            alive,
            told: Vec::new(),
            cache: new_cache(),
            work: None,
            last_used: self.clock,
        });
        slot.told.truncate(keep);
        slot.told.extend_from_slice(append);
        // The cache may hold drafts of the last job: those that the context now confirms stay.
        let common = common_prefix(slot.cache.tokens(), &slot.told);
        slot.cache.truncate(common.min(slot.told.len().saturating_sub(1)));
        slot.last_used = self.clock;
        slot.work = Some(Work { job, drafted: Vec::new(), arrival: self.clock });
        if slot.is_prepared() {
            slot.work = None;
        }
    }

    /// Forgets sequences whose owner is gone and jobs whose caller is.
    pub(super) fn sweep(&mut self) {
        self.slots.retain(|_, slot| slot.alive.strong_count() > 0);
        for slot in self.slots.values_mut() {
            if slot.is_prepared() || slot.work.as_ref().is_some_and(|work| work.job.is_abandoned()) {
                slot.work = None;
            }
        }
    }

    /// Whether no sequence has a job.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.values().all(|slot| slot.work.is_none())
    }

    /// Sequences that hold a cache.
    pub(super) fn resident(&self) -> usize {
        self.slots.values().filter(|slot| !slot.cache.is_empty()).count()
    }

    /// Chooses rows for the next pass, at most `budget`: single rows first, since a draft waits for each of them,
    /// then prefills that someone waits for, then the rest. Drops idle caches where room is needed; a job that
    /// finds no room waits for one that has it.
    pub(super) fn plan(&mut self, budget: usize) -> BTreeMap<u64, usize> {
        self.clock += 1;
        let mut waiting: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(id, slot)| {
                let work = slot.work.as_ref()?;
                Some((slot.pending() > 1, matches!(work.job, Job::Prepare), work.arrival, *id))
            })
            .collect();
        waiting.sort_unstable();
        let mut left = budget.max(1);
        let mut resident = self.resident();
        let mut plan = BTreeMap::new();
        for (.., id) in waiting {
            if left == 0 {
                break;
            }
            if self.slots.get(&id).is_some_and(|slot| slot.cache.is_empty()) {
                if resident >= self.max_resident && !self.evict() {
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

    /// Drops the cache of the idle sequence that was used least recently.
    fn evict(&mut self) -> bool {
        let idle = self.slots.values_mut().filter(|slot| slot.work.is_none() && !slot.cache.is_empty());
        match idle.min_by_key(|slot| slot.last_used) {
            Some(slot) => {
                slot.cache.release();
                true
            }
            None => false,
        }
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
pub(super) fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
