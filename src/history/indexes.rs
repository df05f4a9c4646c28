//! The suffix indexes of all prompts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PromptKey;
use super::shelf::Shelf;
use super::suffix::{Stream, SuffixIndex};
use crate::speculation::TokenId;

/// What one prompt's rollouts know of each other's tokens.
#[derive(Debug)]
pub struct PromptIndex {
    /// The texts.
    pub suffixes: SuffixIndex,
    /// The prompt's own, of which every rollout is a branch.
    pub prompt: Stream,
    /// Up to which number it has the texts of others that share the prompt.
    pub(super) known: u64,
}

/// A suffix index for each prompt, bounded in bytes together and in tokens each.
#[derive(Debug)]
pub struct Indexes {
    shelf: Mutex<Shelf<Arc<Mutex<PromptIndex>>>>,
    most_tokens: usize,
}

impl Indexes {
    /// Indexes of at most `most_bytes`, and of `most_tokens` for each prompt. The prompt whose rollouts began longest ago
    /// leaves first; rollouts that hold on to an index that left go on with it.
    #[must_use]
    pub fn new(most_bytes: usize, most_tokens: usize) -> Self {
        Self { shelf: Mutex::new(Shelf::new(most_bytes)), most_tokens }
    }

    /// The index of a prompt, for a rollout that begins.
    #[must_use]
    pub fn open(&self, key: &PromptKey) -> Arc<Mutex<PromptIndex>> {
        let mut shelf = self.lock();
        let mut made = None;
        let index = Arc::clone(shelf.open(key, || {
            let (mut suffixes, mut prompt) = (SuffixIndex::new(self.most_tokens), Stream::default());
            suffixes.extend(&mut prompt, key.prompt());
            made = Some(suffixes.bytes());
            Arc::new(Mutex::new(PromptIndex { suffixes, prompt, known: 0 }))
        }));
        if let Some(bytes) = made {
            shelf.weigh(key, bytes + key.bytes());
        }
        index
    }

    /// Notes that the index of a prompt takes so many bytes now. May be called with that index locked.
    pub fn weigh(&self, key: &PromptKey, bytes: usize) {
        self.lock().weigh(key, bytes + key.bytes());
    }

    /// Up to which number the prompt's index has the texts of others that share it.
    pub(super) fn known(&self, key: &PromptKey) -> u64 {
        // Not with all of them locked: whoever has locked one may wait for that.
        let index = self.lock().get(key).cloned();
        index.map_or(0, |index| index.lock().unwrap_or_else(PoisonError::into_inner).known)
    }

    /// Adds another's text of that number, unless it is there; false if it is.
    pub(super) fn add(&self, key: &PromptKey, number: u64, text: &[TokenId]) -> bool {
        let index = self.open(key);
        // For one text alone: rollouts of the prompt wait for the lock.
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let PromptIndex { suffixes, prompt, known } = &mut *index;
        if number <= *known {
            return false;
        }
        *known = number;
        suffixes.extend(&mut prompt.branch(), text);
        self.weigh(key, suffixes.bytes());
        true
    }

    /// Prompts that have an index, and the bytes noted for all.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let shelf = self.lock();
        (shelf.len(), shelf.bytes())
    }

    fn lock(&self) -> MutexGuard<'_, Shelf<Arc<Mutex<PromptIndex>>>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
