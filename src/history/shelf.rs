//! Values by prompt, bounded in bytes: the prompt that was used longest ago leaves first.

use std::collections::{BTreeMap, HashMap};

use super::PromptKey;

/// A value with its weight and when it was used.
#[derive(Debug)]
struct Place<T> {
    value: T,
    used: u64,
    bytes: usize,
}

/// Values by prompt.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    places: HashMap<PromptKey, Place<T>>,
    /// By the time of their last use.
    order: BTreeMap<u64, PromptKey>,
    /// Counts uses.
    clock: u64,
    bytes: usize,
    most_bytes: usize,
}

impl<T> Shelf<T> {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { places: HashMap::new(), order: BTreeMap::new(), clock: 0, bytes: 0, most_bytes }
    }

    /// The value of `key`, which is now the one used last; made by `make` if there is none.
    pub(super) fn open(&mut self, key: &PromptKey, make: impl FnOnce() -> T) -> &mut T {
        self.clock += 1;
        let Self { places, order, clock, .. } = self;
        let place = places.entry(key.clone()).or_insert_with(|| Place { value: make(), used: 0, bytes: 0 });
        order.remove(&place.used);
        order.insert(*clock, key.clone());
        place.used = *clock;
        &mut place.value
    }

    /// The value of `key`, if there is one. Looking is no use.
    pub(super) fn get(&self, key: &PromptKey) -> Option<&T> {
        self.places.get(key).map(|place| &place.value)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: &PromptKey) -> Option<&mut T> {
        self.places.get_mut(key).map(|place| &mut place.value)
    }

    /// Notes how many bytes the value of `key` takes, and lets others leave until all fit. Gives back by how many
    /// bytes that value alone is too large.
    pub(super) fn weigh(&mut self, key: &PromptKey, bytes: usize) -> usize {
        let Some(place) = self.places.get_mut(key) else { return 0 };
        self.bytes = self.bytes - place.bytes + bytes;
        place.bytes = bytes;
        while self.bytes > self.most_bytes
            && let Some((used, oldest)) = self.order.iter().find(|(_, other)| *other != key)
        {
            let (used, oldest) = (*used, oldest.clone());
            self.order.remove(&used);
            self.bytes -= self.places.remove(&oldest).map_or(0, |place| place.bytes);
        }
        self.bytes.saturating_sub(self.most_bytes)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.values().map(|place| &place.value)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes noted.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Tenant;

    #[test]
    fn what_was_used_longest_ago_leaves_first() {
        let key = |token| PromptKey::new(Tenant::new(&[]), "m", &[token]);
        let mut shelf = Shelf::new(100);
        for token in 0..3 {
            *shelf.open(&key(token), || 0) += 1;
            assert_eq!(shelf.weigh(&key(token), 40), 0);
        }
        assert_eq!([0, 1, 2].map(|token| shelf.get(&key(token)).copied()), [None, Some(1), Some(1)]);
        *shelf.open(&key(1), || 0) += 1;
        shelf.open(&key(3), || 5);
        shelf.weigh(&key(3), 60);
        assert_eq!([1, 2, 3].map(|token| shelf.get(&key(token)).copied()), [Some(2), None, Some(5)]);
        assert_eq!((shelf.weigh(&key(3), 130), shelf.len(), shelf.bytes()), (30, 1, 130), "too large alone");
        assert_eq!(shelf.weigh(&key(9), 10), 0, "what is not there weighs nothing");
        assert_eq!((shelf.weigh(&key(3), 50), shelf.bytes(), shelf.values().sum::<i32>()), (0, 50, 5));
        *shelf.get_mut(&key(3)).unwrap() = 6;
        assert_eq!(shelf.get(&key(3)), Some(&6));
    }
}
