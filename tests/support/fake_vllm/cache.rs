//! The prefix cache: which leading blocks of a prompt the server need not compute.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The full blocks of a list of tokens that grows, each known by a hash of itself, all before it, and the salt.
#[derive(Debug, Clone)]
pub struct Blocks {
    size: usize,
    chain: DefaultHasher,
    /// Tokens of the block that is not full.
    rest: Vec<u32>,
    hashes: Vec<u64>,
    /// How many of them the cache holds since its `life` began.
    held: (u64, usize),
}

impl Blocks {
    /// The blocks of `size` tokens of `tokens`.
    #[must_use]
    pub fn of(size: usize, salt: Option<&str>, tokens: &[u32]) -> Self {
        let mut chain = DefaultHasher::new();
        salt.hash(&mut chain);
        let mut blocks = Self { size, chain, rest: Vec::with_capacity(size), hashes: Vec::new(), held: (0, 0) };
        tokens.iter().for_each(|&token| blocks.push(token));
        blocks
    }

    /// Adds a token.
    pub fn push(&mut self, token: u32) {
        self.rest.push(token);
        if self.rest.len() == self.size {
            self.rest.hash(&mut self.chain);
            self.hashes.push(self.chain.finish());
            self.rest.clear();
        }
    }

    /// How many tokens there are.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.hashes.len() * self.size + self.rest.len()
    }
}

/// Blocks the server holds.
#[derive(Debug, Default)]
pub struct PrefixCache {
    blocks: HashSet<u64>,
    /// How often it was emptied.
    life: u64,
}

impl PrefixCache {
    /// Leading tokens of a prompt that are held: whole blocks, and never all of the prompt, since its last token must be
    /// computed for the first new one.
    #[must_use]
    pub fn hit(&self, prompt: &Blocks) -> usize {
        let reusable = prompt.tokens().saturating_sub(1) / prompt.size;
        prompt.hashes.iter().take(reusable).take_while(|block| self.blocks.contains(block)).count() * prompt.size
    }

    /// Holds the full blocks of the first `computed` tokens.
    pub fn hold(&mut self, blocks: &mut Blocks, computed: usize) {
        let from = if blocks.held.0 == self.life { blocks.held.1 } else { 0 };
        let upto = (computed / blocks.size).min(blocks.hashes.len());
        if from < upto {
            self.blocks.extend(&blocks.hashes[from..upto]);
            blocks.held = (self.life, upto);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.life += 1;
    }
}
