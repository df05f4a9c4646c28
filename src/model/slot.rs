//! What the model thread knows of one sequence.

use std::sync::Weak;

use super::backend::{Outcome, Then};
use super::error::ModelError;
use super::job::{Answer, Job, Work};
use super::pages::{PagePool, PageTable};
use super::sample::DraftedToken;
use crate::speculation::TokenId;

/// One sequence, as the model thread knows it.
pub(super) struct Slot {
    /// Dead once the sequence's owner has dropped it.
    alive: Weak<()>,
    /// The context, as last told.
    told: Vec<TokenId>,
    pub(super) table: PageTable,
    work: Option<Work>,
    /// Whether the table has every page that the work can come to need.
    pub(super) admitted: bool,
    /// When it was last told something or took part in a pass.
    pub(super) last_used: u64,
}

impl Slot {
    pub(super) fn new(alive: Weak<()>) -> Self {
        let (told, table) = (Vec::new(), PageTable::default());
        Self { alive, told, table, work: None, admitted: false, last_used: 0 }
    }

    /// Tells it its context, the first `keep` tokens of the previous one and then `append`, and gives it a job in place
    /// of whatever it did before, whose drafts it takes over where it continues them: returns how many, and the
    /// answer if they are all that it wanted. The context is not empty.
    pub(super) fn assign(
        &mut self,
        keep: usize,
        append: &[TokenId],
        job: Job,
        arrival: u64,
        pool: &mut PagePool,
    ) -> (usize, Option<Answer>) {
        let ahead = self.work.take().filter(|_| keep == self.told.len());
        let handed_over = ahead.map_or_else(Vec::new, |work| work.hand_over(&job, append));
        self.told.truncate(keep);
        self.told.extend_from_slice(append);
        self.last_used = arrival;
        self.admitted = false;
        let mut work = Work::new(job, arrival);
        let complete = handed_over.into_iter().any(|draft| work.push(draft));
        let used = work.drafted().len();
        // The pages may hold drafts of the last job: those that the context now confirms, or this one begins with,
        // stay. The logits after the last token are wanted, so that one is run again.
        let tokens = self.told.len() + used;
        let common = common_prefix(self.table.tokens(), self.told.iter().copied().chain(work.drafted()));
        pool.truncate(&mut self.table, common.min(tokens - 1));
        if complete {
            return (used, Some(Answer::drafts(work, None)));
        }
        self.work = Some(work);
        self.rest(pool);
        (used, None)
    }

    /// Whether its owner is still there.
    pub(super) fn is_owned(&self) -> bool {
        self.alive.strong_count() > 0
    }

    /// The job, while there is one, however far it is.
    pub(super) fn work(&self) -> Option<&Work> {
        self.work.as_ref()
    }

    /// Positions that the job wants held by now.
    fn wanted(&self) -> usize {
        match &self.work {
            Some(work) if work.is_prepare() => self.told.len() - 1,
            Some(work) if !work.is_over() => self.told.len() + work.drafted().len(),
            _ => 0,
        }
    }

    /// Tokens of context and drafts that the job wants run.
    pub(super) fn pending(&self) -> usize {
        self.wanted().saturating_sub(self.table.len())
    }

    /// Positions that the job can come to hold. The last draft is not run.
    fn most_positions(&self) -> usize {
        match &self.work {
            Some(work) if work.is_prepare() => self.told.len() - 1,
            Some(work) => self.told.len() + work.most_drafts().saturating_sub(1),
            None => 0,
        }
    }

    /// Takes over pages that hold pending tokens already, and returns how many tokens. One stays pending where its
    /// logits are wanted.
    pub(super) fn recall(&mut self, pool: &mut PagePool) -> usize {
        let needed = self.work.as_ref().map_or(0, |work| usize::from(!work.is_prepare()));
        let most = self.pending().saturating_sub(needed);
        let held = self.table.len();
        pool.recall(&mut self.table, text(&self.told, &self.work).skip(held).take(most))
    }

    /// Reserves what the job can come to need, or nothing.
    pub(super) fn reserve(&mut self, pool: &mut PagePool) -> bool {
        let positions = self.most_positions();
        self.admitted = pool.reserve(&mut self.table, positions);
        self.admitted
    }

    /// Loses its pages. What they held is computed again when it is needed.
    pub(super) fn evict(&mut self, pool: &mut PagePool) {
        pool.clear(&mut self.table);
        self.admitted = false;
    }

    /// The next `rows` of the pending tokens.
    pub(super) fn next_tokens(&self, rows: usize) -> Vec<TokenId> {
        text(&self.told, &self.work).skip(self.table.len()).take(rows).collect()
    }

    /// What is wanted after the next `rows` tokens.
    pub(super) fn then(&self, rows: usize) -> Then<'_> {
        match &self.work {
            Some(work) if rows == self.pending() => work.then(),
            _ => Then::Nothing,
        }
    }

    /// Notes that `tokens` were run and what came of them. Returns how many rows went through the model, and the answer
    /// if that was all.
    pub(super) fn advance(
        &mut self,
        tokens: &[TokenId],
        outcome: Outcome,
        pool: &mut PagePool,
    ) -> (usize, Option<Answer>) {
        pool.extend(&mut self.table, tokens.iter().copied());
        let mut rows = tokens.len();
        let answer = match outcome {
            Outcome::Nothing => None,
            Outcome::Logits(logits) => self.work.take().map(|work| Answer { work, logits, failure: None }),
            Outcome::Drafts(drafts) => {
                rows += drafts.len().saturating_sub(1);
                self.take_drafts(drafts, pool)
            }
        };
        self.rest(pool);
        (rows, answer)
    }

    fn take_drafts(&mut self, drafts: Vec<DraftedToken>, pool: &mut PagePool) -> Option<Answer> {
        let work = self.work.as_mut()?;
        let failure = drafts.is_empty().then_some(ModelError::NoFiniteLogit);
        // What the stop rule or an end cuts off is as if it had not been drafted.
        let before = work.drafted().len();
        let done = drafts.into_iter().any(|draft| work.push(draft)) && !work.is_ahead() || failure.is_some();
        let run = work.drafted().len().saturating_sub(1).saturating_sub(before);
        pool.extend(&mut self.table, work.drafted().skip(before).take(run));
        let work = self.work.take_if(|_| done)?;
        Some(Answer::drafts(work, failure))
    }

    /// Forgets a job that is done or whose caller is gone. Where nothing is left to do, what was reserved goes back.
    pub(super) fn rest(&mut self, pool: &mut PagePool) {
        let idle = self.pending() == 0;
        self.work.take_if(|work| work.is_abandoned() || work.is_prepare() && idle);
        if self.admitted && self.pending() == 0 {
            let held = self.table.len();
            pool.truncate(&mut self.table, held);
            self.admitted = false;
        }
    }
}

/// The context and what was drafted after it.
fn text<'a>(told: &'a [TokenId], work: &'a Option<Work>) -> impl Iterator<Item = TokenId> + 'a {
    told.iter().copied().chain(work.iter().flat_map(Work::drafted))
}

/// How many tokens two contexts begin with in common.
pub(super) fn common_prefix(a: &[TokenId], b: impl IntoIterator<Item = TokenId>) -> usize {
    a.iter().zip(b).take_while(|(a, b)| **a == *b).count()
}
