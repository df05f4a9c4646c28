//! Texts in pages of one ring, so that many can grow at once and the oldest pages leave first.

use super::LENGTHS;
use crate::speculation::TokenId;

/// Tokens in a page.
pub(super) const PAGE: usize = 64;

/// No page, and no position.
const NONE: u32 = u32::MAX;

/// Where a token stands: its page's number, counted from the first that ever was, times [`PAGE`], and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(u32);

impl Position {
    fn new(page: u32, offset: usize) -> Self {
        Self(page * PAGE as u32 + offset as u32)
    }

    fn page(self) -> u32 {
        self.0 / PAGE as u32
    }

    fn offset(self) -> usize {
        self.0 as usize % PAGE
    }

    /// As it is kept in links; `u32::MAX` is no position.
    pub(super) fn packed(position: Option<Self>) -> u32 {
        position.map_or(NONE, |position| position.0)
    }

    pub(super) fn unpacked(packed: u32) -> Option<Self> {
        (packed != NONE).then_some(Self(packed))
    }
}

/// A piece of one text.
#[derive(Debug, Clone)]
struct Page {
    tokens: [TokenId; PAGE],
    /// For each length of context, the place before this one where the context had the same hash.
    links: [[u32; PAGE]; LENGTHS.len()],
    length: u32,
    /// The position before the first token.
    before: u32,
    /// The number of the page that goes on where this one is full.
    after: u32,
}

/// A ring of pages.
#[derive(Debug)]
pub(super) struct Pages {
    /// By number, modulo the most there can be.
    ring: Vec<Page>,
    most: u32,
    /// The number of the next page.
    next: u32,
    /// Tokens in the ring.
    length: usize,
}

impl Pages {
    pub(super) fn new(most_tokens: usize) -> Self {
        Self { ring: Vec::new(), most: most_pages(most_tokens), next: 0, length: 0 }
    }

    /// Appends `token` to the page that holds `last`, or to a new one if that is full, gone, not given, or `is_branch`.
    pub(super) fn push(&mut self, last: Option<Position>, is_branch: bool, token: TokenId) -> Position {
        let open = last.filter(|last| !is_branch && self.is_live(*last) && last.offset() + 1 < PAGE);
        let number = match open {
            Some(last) => last.page(),
            None => self.add(last, is_branch),
        };
        self.length += 1;
        let page = self.page_mut(number);
        let offset = page.length as usize;
        page.tokens[offset] = token;
        page.length += 1;
        Position::new(number, offset)
    }

    /// A new page after `last`, in the place of the oldest if there are as many as there can be.
    fn add(&mut self, last: Option<Position>, is_branch: bool) -> u32 {
        // Numbers end with the 4 billionth token. Whoever still knows an old one may then find another text, or write to
        // its page: that costs drafts.
        if self.next == NONE / PAGE as u32 {
            self.ring.clear();
            (self.next, self.length) = (0, 0);
        }
        let number = self.next;
        self.next += 1;
        let last = last.filter(|last| self.is_live(*last));
        if let Some(last) = last
            && !is_branch
        {
            self.page_mut(last.page()).after = number;
        }
        let links = [[NONE; PAGE]; LENGTHS.len()];
        let page = Page { tokens: [0; PAGE], links, length: 0, before: Position::packed(last), after: NONE };
        let (count, most) = (self.ring.len(), self.most as usize);
        if count < most {
            if count == self.ring.capacity() {
                self.ring.reserve_exact(count.clamp(1, most - count));
            }
            self.ring.push(page);
        } else {
            let oldest = self.page_mut(number);
            let gone = std::mem::replace(oldest, page).length;
            self.length -= gone as usize;
        }
        number
    }

    /// Where a page lies. A division takes as long as all else that is done with a token, and a young ring needs none.
    fn place(&self, number: u32) -> usize {
        (if number < self.most { number } else { number % self.most }) as usize
    }

    fn page(&self, number: u32) -> &Page {
        &self.ring[self.place(number)]
    }

    fn page_mut(&mut self, number: u32) -> &mut Page {
        let place = self.place(number);
        &mut self.ring[place]
    }

    fn has(&self, number: u32) -> bool {
        number < self.next && self.next - number <= self.most
    }

    /// Whether the page of a position is still there.
    pub(super) fn is_live(&self, position: Position) -> bool {
        self.has(position.page())
    }

    /// The token at a live position.
    pub(super) fn token(&self, position: Position) -> TokenId {
        self.page(position.page()).tokens[position.offset()]
    }

    /// The position of the token after the one at a live position, if there is one yet.
    pub(super) fn after(&self, position: Position) -> Option<Position> {
        let page = self.page(position.page());
        if position.offset() + 1 < page.length as usize {
            return Some(Position(position.0 + 1));
        }
        (self.has(page.after) && self.page(page.after).length > 0).then(|| Position::new(page.after, 0))
    }

    /// How many of the last of `context` stand right before a live position.
    pub(super) fn agreement(&self, position: Position, context: &[TokenId]) -> usize {
        let (mut page, mut offset) = (self.page(position.page()), position.offset());
        for (agreeing, token) in context.iter().rev().enumerate() {
            if offset == 0 {
                let before = Position::unpacked(page.before).filter(|before| self.is_live(*before));
                let Some(before) = before else { return agreeing };
                (page, offset) = (self.page(before.page()), before.offset() + 1);
            }
            offset -= 1;
            if page.tokens[offset] != *token {
                return agreeing;
            }
        }
        context.len()
    }

    /// The place before a live position in the chain of a level.
    pub(super) fn link(&self, level: usize, position: Position) -> Option<Position> {
        Position::unpacked(self.page(position.page()).links[level][position.offset()])
    }

    pub(super) fn set_link(&mut self, level: usize, position: Position, link: u32) {
        self.page_mut(position.page()).links[level][position.offset()] = link;
    }

    /// The numbers of all pages, the oldest first.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        self.next - self.ring.len() as u32..self.next
    }

    /// The positions of a page's tokens.
    pub(super) fn positions(&self, number: u32) -> impl Iterator<Item = Position> + use<> {
        (0..self.page(number).length as usize).map(move |offset| Position::new(number, offset))
    }

    /// The last tokens before a page, at most `count`, the latest last.
    pub(super) fn before(&self, number: u32, count: usize) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(count);
        let mut page = self.page(number);
        while tokens.len() < count
            && let Some(before) = Position::unpacked(page.before).filter(|before| self.is_live(*before))
        {
            page = self.page(before.page());
            tokens.extend(page.tokens[..=before.offset()].iter().rev().take(count - tokens.len()));
        }
        tokens.reverse();
        tokens
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> usize {
        self.ring.capacity() * size_of::<Page>()
    }

    pub(super) fn most_bytes(most_tokens: usize) -> usize {
        most_pages(most_tokens) as usize * size_of::<Page>()
    }
}

fn most_pages(most_tokens: usize) -> u32 {
    (most_tokens / PAGE).clamp(1, (NONE / PAGE as u32 - 1) as usize) as u32
}
