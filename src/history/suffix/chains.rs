//! Which places follow the same context: for each of a few lengths, chains of places by the hash of the tokens before them.

use super::pages::{Pages, Position};
use crate::speculation::TokenId;

/// Lengths of context by which places are found, ascending.
pub(super) const LENGTHS: [usize; 3] = [2, 4, 10];
/// The last of them.
pub(super) const LONGEST: usize = LENGTHS[LENGTHS.len() - 1];

/// Heads of a level before it grows.
const LEAST_HEADS: usize = 256;

/// One text that grows, as far as its next token needs it: where it ends, and its last tokens.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    last: Option<Position>,
    is_branch: bool,
    recent: Recent,
}

impl Stream {
    /// A text that begins with all of this one, and of which only what comes then is indexed.
    #[must_use]
    pub fn branch(&self) -> Self {
        Self { is_branch: true, ..self.clone() }
    }

    /// The text's last tokens, as many as are needed to find what may come next.
    #[must_use]
    pub fn recent(&self) -> &[TokenId] {
        self.recent.tokens()
    }

    /// Appends `token` to the text in `pages`.
    pub(super) fn push(&mut self, pages: &mut Pages, token: TokenId) -> Position {
        let position = pages.push(self.last, self.is_branch, token);
        (self.last, self.is_branch) = (Some(position), false);
        position
    }

    /// Counts `token` among the last ones.
    pub(super) fn remember(&mut self, token: TokenId) {
        self.recent.push(token);
    }
}

/// The last tokens of a text.
#[derive(Debug, Clone, Default)]
struct Recent {
    /// The latest last; those before the beginning are 0.
    tokens: [TokenId; LONGEST],
    count: usize,
}

impl Recent {
    fn push(&mut self, token: TokenId) {
        self.tokens.copy_within(1.., 0);
        self.tokens[LONGEST - 1] = token;
        self.count = (self.count + 1).min(LONGEST);
    }

    fn tokens(&self) -> &[TokenId] {
        &self.tokens[LONGEST - self.count..]
    }
}

/// The latest place of every hash, by level.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// A power of two of them, or none.
    heads: [Vec<u32>; LENGTHS.len()],
}

impl Chains {
    /// Whether an index of so many tokens needs more heads.
    pub(super) fn is_full(&self, tokens: usize) -> bool {
        tokens > self.heads[0].len()
    }

    /// Puts `position`, whose token is the next of `stream`, at the head of its chains.
    pub(super) fn link(&mut self, pages: &mut Pages, position: Position, stream: &Stream) {
        self.link_after(pages, position, stream.recent.tokens());
    }

    fn link_after(&mut self, pages: &mut Pages, position: Position, recent: &[TokenId]) {
        let bits = self.heads[0].len().trailing_zeros();
        for (level, hash) in hashes(recent).into_iter().enumerate() {
            let Some(hash) = hash else { break };
            let head = &mut self.heads[level][bucket(hash, bits)];
            let previous = std::mem::replace(head, Position::packed(Some(position)));
            pages.set_link(level, position, previous);
        }
    }

    /// Makes the heads twice as many as there are tokens, and links all places anew, page by page.
    pub(super) fn rebuild(&mut self, pages: &mut Pages) {
        let count = (pages.len() + 1).next_power_of_two().max(LEAST_HEADS);
        let none = Position::packed(None);
        for heads in &mut self.heads {
            *heads = Vec::new();
            heads.resize(count, none);
        }
        for number in pages.numbers() {
            let mut recent = Recent::default();
            pages.before(number, LONGEST).into_iter().for_each(|token| recent.push(token));
            for position in pages.positions(number) {
                (0..LENGTHS.len()).for_each(|level| pages.set_link(level, position, none));
                self.link_after(pages, position, recent.tokens());
                recent.push(pages.token(position));
            }
        }
    }

    /// The latest place after the same tokens as those at the end of `recent`, or others of the same hash.
    pub(super) fn head(&self, level: usize, recent: &[TokenId]) -> Option<Position> {
        let hash = hashes(recent)[level]?;
        let heads = &self.heads[level];
        let bits = heads.len().checked_ilog2()?;
        Position::unpacked(heads[bucket(hash, bits)])
    }

    pub(super) fn bytes(&self) -> usize {
        self.heads.iter().map(|heads| heads.capacity() * size_of::<u32>()).sum()
    }

    pub(super) fn most_bytes(most_tokens: usize) -> usize {
        LENGTHS.len() * (most_tokens + 1).next_power_of_two().max(LEAST_HEADS) * size_of::<u32>()
    }
}

/// The hash of the last tokens of `recent`, for each length that it has.
fn hashes(recent: &[TokenId]) -> [Option<u64>; LENGTHS.len()] {
    let mut hashes = [None; LENGTHS.len()];
    let mut hash = 0_u64;
    let mut from = 0;
    for (level, length) in LENGTHS.iter().enumerate() {
        let Some(start) = recent.len().checked_sub(*length) else { break };
        // Fibonacci hashing: the high bits of a product with 2⁶⁴/φ depend on every bit below.
        for token in recent[start..recent.len() - from].iter().rev() {
            hash = (hash.rotate_left(32) ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        from = *length;
        hashes[level] = Some(hash);
    }
    hashes
}

/// The place of a hash among 2^`bits` heads, of which there are at least two.
fn bucket(hash: u64, bits: u32) -> usize {
    (hash >> (64 - bits)) as usize
}
