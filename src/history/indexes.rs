//! The suffix indexes of all prompts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PromptKey;
use super::shelf::Shelf;
use super::suffix::{Stream, SuffixIndex};

/// What one prompt's rollouts know of each other's tokens.
#[derive(Debug)]
pub struct PromptIndex {
    /// The texts.
    pub suffixes: SuffixIndex,
    /// The prompt's own, of which every rollout is a branch.
    pub prompt: Stream,
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
            Arc::new(Mutex::new(PromptIndex { suffixes, prompt }))
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
