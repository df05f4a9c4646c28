//! History in this process's memory, bounded in bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shelf::Shelf;
use super::{Finish, History, Lease, PromptKey, Rollout, RolloutId, Usage};
use crate::speculation::{Sampling, Scored};

/// One rollout and whom it served.
#[derive(Debug)]
struct Kept {
    id: RolloutId,
    rollout: Arc<Rollout>,
    standing: Standing,
    /// Whether its drafts may be drawn ones.
    by_rows: bool,
}

/// Whose a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is here to be taken.
    Own,
    /// It is handed out elsewhere.
    Lent,
    /// It has served another.
    Served,
}

impl Kept {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.rollout.bytes()
    }

    /// Whether it may serve a rollout under `version`.
    fn is_free(&self, version: &str) -> bool {
        let Self { rollout, standing, .. } = self;
        let is_over = rollout.ended().is_some() && !rollout.tokens().is_empty();
        is_over && !rollout.ran_under(version) && *standing == Standing::Own
    }
}

/// A prompt's rollouts.
#[derive(Debug, Default)]
struct Group {
    /// In the order in which they began.
    kept: Vec<Kept>,
    /// What they weigh together.
    bytes: usize,
    /// The version under which those who share the prompt have no earlier rollout under way, as was last heard of them.
    settled: Option<Arc<str>>,
}

impl Group {
    fn push(&mut self, kept: Kept) {
        self.bytes += kept.bytes();
        self.kept.push(kept);
    }

    /// Changes a rollout; false if it is not there.
    fn change(&mut self, id: RolloutId, change: impl FnOnce(&mut Rollout)) -> bool {
        let Ok(at) = self.kept.binary_search_by_key(&id, |kept| kept.id) else { return false };
        let kept = &mut self.kept[at];
        let before = kept.bytes();
        // A reader that holds it keeps what it saw.
        change(Arc::make_mut(&mut kept.rollout));
        self.bytes = self.bytes - before + kept.bytes();
        true
    }

    /// Whether all is over here that began under versions other than `version`, and none of it ran under that one.
    fn is_settled(&self, version: &str) -> bool {
        let mut earlier = self.kept.iter().filter(|kept| kept.rollout.begun_under() != version);
        earlier.all(|kept| kept.rollout.ended().is_some() && !kept.rollout.ran_under(version))
    }

    /// The last rollout that may serve one under `version`, which it now does.
    fn take(&mut self, version: &str) -> Option<&Kept> {
        let kept = self.kept.iter_mut().rfind(|kept| kept.is_free(version))?;
        kept.standing = Standing::Served;
        Some(kept)
    }

    /// Moves a rollout that stands as `from` to `to`, and gives it back; nothing if it stands otherwise.
    fn move_to(&mut self, id: RolloutId, from: Standing, to: Standing) -> Option<Arc<Rollout>> {
        let at = self.kept.binary_search_by_key(&id, |kept| kept.id).ok()?;
        let kept = self.kept.get_mut(at).filter(|kept| kept.standing == from)?;
        kept.standing = to;
        Some(Arc::clone(&kept.rollout))
    }

    /// Forgets the rollouts that began first until `excess` bytes are saved, the last one excepted.
    fn shed(&mut self, excess: usize) {
        let mut saved = 0;
        let mut count = 0;
        while saved < excess && count + 1 < self.kept.len() {
            saved += self.kept[count].bytes();
            count += 1;
        }
        self.kept.drain(..count);
        self.bytes -= saved;
    }
}

#[derive(Debug)]
struct Inner {
    shelf: Shelf<Group>,
    /// Rollouts begun.
    begun: u64,
}

impl Inner {
    /// Changes a rollout, if it is there still.
    fn change(&mut self, key: &PromptKey, id: RolloutId, change: impl FnOnce(&mut Rollout)) -> bool {
        let is_there = self.shelf.get_mut(key).is_some_and(|group| group.change(id, change));
        if is_there {
            self.weigh(key);
        }
        is_there
    }

    /// Lets go of what no longer fits after the group of `key` has changed.
    fn weigh(&mut self, key: &PromptKey) {
        let bytes = |group: &Group| size_of::<Group>() + group.bytes + key.bytes();
        let Some(weight) = self.shelf.get(key).map(bytes) else { return };
        let excess = self.shelf.weigh(key, weight);
        if excess > 0
            && let Some(group) = self.shelf.get_mut(key)
        {
            group.shed(excess);
            let weight = bytes(group);
            self.shelf.weigh(key, weight);
        }
    }
}

/// Rollouts in memory. Every operation holds one lock for a moment.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
    /// Whether others share the prompts, of whom it must be heard that they are settled.
    is_shared: bool,
}

impl Memory {
    /// A store of at most `most_bytes`. When it is full, the prompt that was longest without a new rollout leaves; of a
    /// prompt that alone is too large, the rollouts that began first, but never the last.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { inner: Mutex::new(Inner { shelf: Shelf::new(most_bytes), begun: 0 }), is_shared: false }
    }

    /// The same, as the part here of a store whose prompts others share.
    pub(super) fn shared(most_bytes: usize) -> Self {
        Self { is_shared: true, ..Self::new(most_bytes) }
    }

    /// How many rollouts of the prompt may serve new ones under `version`.
    pub(super) fn free(&self, key: &PromptKey, version: &str) -> usize {
        let inner = self.lock();
        inner.shelf.get(key).map_or(0, |group| group.kept.iter().filter(|kept| kept.is_free(version)).count())
    }

    /// Has a rollout that is over handed out elsewhere, and no longer here. Gives it back; `None` if it is not to be had.
    pub(super) fn lend(&self, key: &PromptKey, id: RolloutId) -> Option<Arc<Rollout>> {
        self.lock().shelf.get_mut(key)?.move_to(id, Standing::Own, Standing::Lent)
    }

    /// Has a rollout handed out here again, since nobody else does. False if it is forgotten.
    pub(super) fn regain(&self, key: &PromptKey, id: RolloutId) -> bool {
        let mut inner = self.lock();
        let group = inner.shelf.get_mut(key);
        group.and_then(|group| group.move_to(id, Standing::Lent, Standing::Own)).is_some()
    }

    /// Takes in another's rollout, to be handed out here; `by_rows` says whether its drafts may be drawn ones.
    pub(super) fn adopt(&self, key: &PromptKey, rollout: Rollout, by_rows: bool) {
        let mut inner = self.lock();
        inner.begun += 1;
        let kept = Kept { id: RolloutId(inner.begun), rollout: Arc::new(rollout), standing: Standing::Own, by_rows };
        inner.shelf.open(key, Group::default).push(kept);
        inner.weigh(key);
    }

    /// Notes whether others have rollouts of the prompt under way that began before `version`.
    pub(super) fn hear(&self, key: &PromptKey, version: &Arc<str>, is_settled: bool) {
        if let Some(group) = self.lock().shelf.get_mut(key) {
            group.settled = is_settled.then(|| Arc::clone(version));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History for Memory {
    fn begin(&self, key: &PromptKey, version: &Arc<str>, sampling: Option<Sampling>) -> RolloutId {
        let mut inner = self.lock();
        inner.begun += 1;
        let id = RolloutId(inner.begun);
        let rollout = Arc::new(Rollout::new(Arc::clone(version), sampling));
        inner.shelf.open(key, Group::default).push(Kept { id, rollout, standing: Standing::Own, by_rows: true });
        inner.weigh(key);
        id
    }

    fn extend(&self, key: &PromptKey, id: RolloutId, version: &Arc<str>, scored: &[Scored]) -> bool {
        self.lock().change(key, id, |rollout| rollout.extend(version, scored))
    }

    fn finish(&self, key: &PromptKey, id: RolloutId, finish: Finish) -> bool {
        self.lock().change(key, id, |rollout| rollout.finish(finish))
    }

    fn rollouts(&self, key: &PromptKey) -> Vec<Arc<Rollout>> {
        let inner = self.lock();
        let group = inner.shelf.get(key).map_or(&[][..], |group| group.kept.as_slice());
        group.iter().map(|kept| Arc::clone(&kept.rollout)).collect()
    }

    fn take(&self, key: &PromptKey, version: &str) -> Option<Lease> {
        let mut inner = self.lock();
        let group = inner.shelf.get_mut(key)?;
        let is_heard = !self.is_shared || group.settled.as_ref().is_some_and(|settled| **settled == *version);
        let is_settled = is_heard && group.is_settled(version);
        let kept = group.take(version)?;
        Some(Lease { id: kept.id, rollout: Arc::clone(&kept.rollout), is_unselected: is_settled && kept.by_rows })
    }

    fn usage(&self) -> Usage {
        let inner = self.lock();
        let rollouts = || inner.shelf.values().flat_map(|group| &group.kept);
        Usage {
            prompts: inner.shelf.len(),
            rollouts: rollouts().count(),
            tokens: rollouts().map(|kept| kept.rollout.tokens().len()).sum(),
            bytes: inner.shelf.bytes(),
        }
    }
}
