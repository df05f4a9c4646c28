//! The prefix cache: which leading blocks of a prompt the server need not compute.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Blocks the server holds, each known by a hash of itself, all before it, and the salt.
#[derive(Debug)]
pub struct PrefixCache {
    block_size: usize,
    blocks: HashSet<u64>,
}

impl PrefixCache {
    /// An empty cache of blocks of `block_size` tokens.
    #[must_use]
    pub fn new(block_size: usize) -> Self {
        Self { block_size, blocks: HashSet::new() }
    }

    /// Leading tokens of `prompt` that are held: whole blocks, and never all of the prompt, since its last token must be
    /// computed for the first new one.
    #[must_use]
    pub fn hit(&self, salt: Option<&str>, prompt: &[u32]) -> usize {
        let reusable = &prompt[..prompt.len().saturating_sub(1)];
        self.hashes(salt, reusable).take_while(|block| self.blocks.contains(block)).count() * self.block_size
    }

    /// Holds the full blocks of `computed`.
    pub fn insert(&mut self, salt: Option<&str>, computed: &[u32]) {
        let blocks: Vec<_> = self.hashes(salt, computed).collect();
        self.blocks.extend(blocks);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    fn hashes<'a>(&self, salt: Option<&str>, tokens: &'a [u32]) -> impl Iterator<Item = u64> + use<'a> {
        let mut chain = DefaultHasher::new();
        salt.hash(&mut chain);
        tokens.chunks_exact(self.block_size).map(move |block| {
            block.hash(&mut chain);
            chain.finish()
        })
    }
}
