//! Where each n-gram of a growing context ended before: chained hashing by position, as LZ77 compressors look for
//! their matches, so that a lookup costs the tokens that are new and a few candidates, whatever the context's length.

use crate::speculation::TokenId;

/// Candidates that a lookup visits at most, the latest first.
const VISITED: usize = 64;

/// Tokens before the end of what is indexed by which a context is recognised as longer than the last one. A context
/// that differs before them goes unnoticed, which costs matches and nothing else: positions are only candidates.
const RECOGNISED: usize = 32;

/// No position.
const NONE: u32 = u32::MAX;

/// The ends of every n-gram of a context but its last, by their hash.
#[derive(Debug, Clone)]
pub(super) struct SuffixIndex {
    n: usize,
    /// Latest position of each hash; a power of two of them, at least as many as there are positions.
    heads: Vec<u32>,
    /// `previous[end]`: the position before `end` with the same hash; one per position, those shorter than n included.
    previous: Vec<u32>,
    /// The last tokens of what is indexed.
    tail: Vec<TokenId>,
}

impl SuffixIndex {
    /// An index of n-grams; `n` is at least 1.
    pub(super) fn new(n: usize) -> Self {
        Self { n, heads: Vec::new(), previous: Vec::new(), tail: Vec::new() }
    }

    /// Takes in what is new in `context`, or all of it if it is not what was there before and more.
    pub(super) fn extend(&mut self, context: &[TokenId]) {
        if !context.get(..self.previous.len()).is_some_and(|known| known.ends_with(&self.tail)) {
            self.previous.clear();
            self.heads.fill(NONE);
        }
        if self.heads.len() < context.len() {
            self.previous.clear();
            self.heads = vec![NONE; context.len().next_power_of_two().max(1024) * 2];
        }
        // The n-gram at the very end is the one that is looked for.
        for end in self.previous.len()..context.len() {
            let previous = self.bucket(context, end).map_or(NONE, |bucket| {
                let head = &mut self.heads[bucket];
                std::mem::replace(head, end as u32)
            });
            self.previous.push(previous);
        }
        self.tail.clear();
        self.tail.extend_from_slice(&context[context.len().saturating_sub(RECOGNISED)..]);
    }

    /// Where the last n tokens of `context`, which was taken in, may have ended before, the latest first. Some of
    /// the candidates may be other n-grams of the same hash.
    pub(super) fn earlier(&self, context: &[TokenId]) -> impl Iterator<Item = usize> + '_ {
        let head = self.bucket(context, context.len()).map_or(NONE, |bucket| self.heads[bucket]);
        let chain = std::iter::successors(Some(head), |end| self.previous.get(*end as usize).copied());
        chain.take_while(|end| *end != NONE).map(|end| end as usize).take(VISITED)
    }

    /// The place of the n-gram that ends before `end`.
    fn bucket(&self, context: &[TokenId], end: usize) -> Option<usize> {
        let gram = &context[end.checked_sub(self.n)?..end];
        // Fibonacci hashing: the high bits of a product with 2⁶⁴/φ depend on every bit below.
        let mix = |hash: u64, token: &TokenId| (hash ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = gram.iter().fold(0_u64, |hash, token| mix(hash.rotate_left(32), token));
        let bits = self.heads.len().checked_ilog2()?;
        Some((hash >> (64 - bits)) as usize)
    }
}
