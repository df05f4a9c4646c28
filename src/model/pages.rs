//! Which pages of the KV cache hold what: page tables of sequences, and the pool that they draw from. The bytes are the
//! backend's; here are only numbers.
//!
//! Sequences share full pages. A full page has a name, which stands for its tokens and all that come before them, so a
//! sequence whose context begins with the same tokens finds it and need not compute it again. A page that nobody holds
//! any more keeps its name and what is in it until another is needed; those released longest ago go first.
//!
//! Nothing is ever copied, since nobody writes where another reads:
//! - A table's full pages all have names, and each its block's: the tokens in it, after the name of the page before.
//! - What a table has beyond them, one page that is partly full and what is reserved, is nameless and held by it alone.
//! - Whoever holds a page holds the pages before it, and releases them later. So a context that nobody has any more is
//!   given up from its end, and what is left of it is found from its beginning.

use std::collections::{HashMap, VecDeque};

use super::backend::{PAGE, PageId};
use crate::speculation::TokenId;

/// What stands for the tokens of a page and all before them. None is given twice, so equal names mean equal tokens.
type Name = u64;

/// The name of nothing, which comes before every first page.
const ROOT: Name = 0;

/// The content of a full page.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Block {
    before: Name,
    tokens: [TokenId; PAGE],
}

/// The pages of one sequence.
#[derive(Default)]
pub(super) struct PageTable {
    /// Those whose keys and values are held, in order.
    tokens: Vec<TokenId>,
    /// Enough for the tokens; more where some are reserved.
    pages: Vec<PageId>,
}

impl PageTable {
    /// The tokens whose keys and values are held, in order.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Positions held.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Position p's keys and values lie in page p / [`PAGE`] of these.
    pub(super) fn pages(&self) -> &[PageId] {
        &self.pages
    }
}

/// All pages.
pub(super) struct PagePool {
    total: usize,
    /// Those that were ever used.
    pages: Vec<Page>,
    /// Nameless pages that nobody holds.
    free: Vec<PageId>,
    /// Pages with names that nobody holds, by when they were released. An entry of a page that was taken since, or
    /// released again, is stale.
    released: VecDeque<(u64, PageId)>,
    /// How many entries are not.
    kept: usize,
    known: HashMap<Block, PageId>,
    last_name: Name,
    /// Counts releases.
    clock: u64,
}

#[derive(Default)]
struct Page {
    /// Tables that it is in.
    holders: usize,
    name: Option<(Name, Block)>,
    /// When its last holder released it; meaningless while it has one.
    released: u64,
}

impl PagePool {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            pages: Vec::new(),
            free: Vec::new(),
            released: VecDeque::new(),
            kept: 0,
            known: HashMap::new(),
            last_name: ROOT,
            clock: 0,
        }
    }

    /// Pages that sequences hold.
    pub(super) fn held(&self) -> usize {
        self.pages.len() - self.free.len() - self.kept
    }

    /// Reserves pages for `positions`, what the table has included: all of them or, where there are not so many, none.
    pub(super) fn reserve(&mut self, table: &mut PageTable, positions: usize) -> bool {
        let missing = positions.div_ceil(PAGE).saturating_sub(table.pages.len());
        if missing > self.total - self.held() {
            return false;
        }
        let taken = (0..missing).map_while(|_| self.take());
        table.pages.extend(taken);
        true
    }

    /// Continues a table by pages that hold the `upcoming` tokens already, which take the place of reserved ones. Returns
    /// how many tokens those are.
    pub(super) fn recall(&mut self, table: &mut PageTable, mut upcoming: impl Iterator<Item = TokenId>) -> usize {
        let before = table.len();
        while table.len().is_multiple_of(PAGE) {
            let mut tokens = [0; PAGE];
            if tokens.iter_mut().zip(&mut upcoming).map(|(place, token)| *place = token).count() < PAGE {
                break;
            }
            let block = Block { before: self.name(table, table.len() / PAGE), tokens };
            let Some(&page) = self.known.get(&block) else { break };
            self.put(table, table.len() / PAGE, page);
            table.tokens.extend(tokens);
        }
        table.len() - before
    }

    /// Notes tokens whose keys and values are in the table's pages now.
    pub(super) fn extend(&mut self, table: &mut PageTable, tokens: impl IntoIterator<Item = TokenId>) {
        for token in tokens {
            table.tokens.push(token);
            if table.len().is_multiple_of(PAGE) {
                self.name_last(table);
            }
        }
        debug_assert!(table.pages.len() * PAGE >= table.len());
    }

    /// Forgets everything from position `length` on, or, where the page there has other holders too, from that page's
    /// beginning, and what is reserved. The work is in proportion to the pages that the table loses, so on average
    /// each costs once for having been added.
    pub(super) fn truncate(&mut self, table: &mut PageTable, length: usize) {
        let length = length.min(table.len());
        let cut = table.pages.get(length / PAGE).filter(|_| !length.is_multiple_of(PAGE));
        let own = cut.is_some_and(|page| self.pages[*page as usize].holders == 1);
        let length = if own { length } else { length / PAGE * PAGE };
        table.tokens.truncate(length);
        for page in table.pages.drain(length.div_ceil(PAGE)..).rev() {
            // Those after a page that loses its name could not be found again.
            if own && self.pages[page as usize].holders == 1 {
                self.forget(page);
            }
            self.release(page);
        }
        if let Some(&page) = table.pages.last().filter(|_| own) {
            self.forget(page);
        }
    }

    /// Takes everything from a table.
    pub(super) fn clear(&mut self, table: &mut PageTable) {
        self.truncate(table, 0);
    }

    /// What stands for the table's first `pages` pages, which are full and named.
    fn name(&self, table: &PageTable, pages: usize) -> Name {
        let last = pages.checked_sub(1).and_then(|index| self.pages[table.pages[index] as usize].name.as_ref());
        last.map_or(ROOT, |(name, _)| *name)
    }

    /// Names the page that the table has just filled; one of the same content that is there already takes its place.
    fn name_last(&mut self, table: &mut PageTable) {
        let Some((_, tokens)) = table.tokens.split_last_chunk() else { return };
        let index = table.len() / PAGE - 1;
        let block = Block { before: self.name(table, index), tokens: *tokens };
        if let Some(&page) = self.known.get(&block) {
            return self.put(table, index, page);
        }
        let page = table.pages[index];
        self.last_name += 1;
        self.pages[page as usize].name = Some((self.last_name, block.clone()));
        self.known.insert(block, page);
    }

    /// Puts a page with a name into a table, in place of a reserved or filled one if there is one at `index`.
    fn put(&mut self, table: &mut PageTable, index: usize, page: PageId) {
        let entry = &mut self.pages[page as usize];
        self.kept -= usize::from(entry.holders == 0);
        entry.holders += 1;
        match table.pages.get_mut(index) {
            Some(place) => {
                let own = std::mem::replace(place, page);
                self.release(own);
            }
            None => table.pages.push(page),
        }
    }

    /// A nameless page for one holder: one that is free, else one never used, else the one released longest ago.
    fn take(&mut self) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None if self.pages.len() < self.total => {
                self.pages.push(Page::default());
                (self.pages.len() - 1) as PageId
            }
            None => self.oldest_released()?,
        };
        self.pages[page as usize].holders = 1;
        Some(page)
    }

    fn oldest_released(&mut self) -> Option<PageId> {
        loop {
            let entry = self.released.pop_front()?;
            if self.is_current(&entry) {
                self.kept -= 1;
                self.forget(entry.1);
                return Some(entry.1);
            }
        }
    }

    fn is_current(&self, (time, page): &(u64, PageId)) -> bool {
        let page = &self.pages[*page as usize];
        page.holders == 0 && page.released == *time && page.name.is_some()
    }

    fn forget(&mut self, page: PageId) {
        if let Some((_, block)) = self.pages[page as usize].name.take() {
            self.known.remove(&block);
        }
    }

    /// Takes a page from one of its holders.
    fn release(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        if entry.name.is_none() {
            return self.free.push(page);
        }
        self.clock += 1;
        entry.released = self.clock;
        self.kept += 1;
        self.released.push_back((self.clock, page));
        if self.released.len() > 2 * self.total {
            let mut released = std::mem::take(&mut self.released);
            released.retain(|entry| self.is_current(entry));
            self.released = released;
        }
    }
}

#[cfg(test)]
mod tests;
