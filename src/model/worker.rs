//! The model thread: owner of the weights, every cache and the random numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::forward::Scratch;
use super::job::Job;
use super::llama::Llama;
use super::options::ModelOptions;
use super::parallel::Threads;
use super::sample::draw;
use super::slot::{Slot, Slots};
use crate::speculation::TokenId;

/// What handles tell the thread.
pub(super) enum Command {
    /// A sequence's context and what it wants next.
    Work { sequence: u64, alive: Weak<()>, keep: usize, append: Vec<TokenId>, job: Job },
    /// A sequence was dropped, or the thread was told to stop: look around.
    Wake,
    /// A fault, for the test that nothing hangs after one.
    #[cfg(test)]
    Panic,
    /// Nothing is done until the other end is dropped, for tests of calls that are certainly under way.
    #[cfg(test)]
    Hold(std::sync::mpsc::Receiver<()>),
    /// Dropped when nothing is left to do, for tests of what is done while nobody waits.
    #[cfg(test)]
    Settle(tokio::sync::oneshot::Sender<()>),
}

/// What the thread and its handles share.
#[derive(Default)]
pub(super) struct Shared {
    /// Sequences that hold a cache.
    pub(super) active: AtomicUsize,
    /// Rows of forward passes.
    pub(super) rows: AtomicU64,
    /// Drafts drawn ahead that became part of an answer.
    pub(super) used_ahead: AtomicU64,
    /// Set once, to end the thread.
    pub(super) stop: AtomicBool,
    /// The next sequence's number.
    pub(super) next_sequence: AtomicU64,
}

/// The thread's state.
pub(super) struct Worker {
    llama: Llama,
    threads: Threads,
    rows_per_pass: usize,
    slots: Slots,
    scratch: Scratch,
    rng: StdRng,
    shared: Arc<Shared>,
    #[cfg(test)]
    unsettled: Vec<tokio::sync::oneshot::Sender<()>>,
}

/// Says so when the thread dies of a panic.
struct Obituary;

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the draft model's thread panicked; rollouts go on without it");
        }
    }
}

impl Worker {
    pub(super) fn new(llama: Llama, threads: Threads, options: &ModelOptions, shared: Arc<Shared>) -> Self {
        Self {
            llama,
            threads,
            rows_per_pass: options.rows_per_pass,
            slots: Slots::new(options.max_sequences),
            scratch: Scratch::default(),
            rng: options.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64),
            shared,
            #[cfg(test)]
            unsettled: Vec::new(),
        }
    }

    /// Serves commands until the last handle is gone or the thread is told to stop. Whatever waits then learns of it
    /// by its channel closing.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let _obituary = Obituary;
        loop {
            if self.slots.is_idle() {
                #[cfg(test)]
                self.unsettled.clear();
                match commands.blocking_recv() {
                    Some(command) => self.accept(command),
                    None => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.accept(command);
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            self.slots.sweep();
            self.pass();
            self.slots.sweep();
            self.publish();
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Work { sequence, alive, keep, append, job } => {
                let used = self.slots.assign(sequence, alive, keep, &append, job, || self.llama.new_cache());
                self.shared.used_ahead.fetch_add(used as u64, Ordering::Relaxed);
            }
            Command::Wake => {}
            #[cfg(test)]
            Command::Panic => panic!("asked to"),
            #[cfg(test)]
            Command::Hold(until) => drop(until.recv()),
            #[cfg(test)]
            Command::Settle(done) => self.unsettled.push(done),
        }
    }

    fn publish(&self) {
        self.shared.active.store(self.slots.resident(), Ordering::Release);
    }

    /// One forward pass, then the answers that it completes.
    fn pass(&mut self) {
        let plan = self.slots.plan(self.rows_per_pass);
        self.publish();
        if plan.is_empty() {
            return;
        }
        let mut feeds: Vec<_> = self.slots.planned(&plan).map(|(slot, rows)| slot.feed(rows)).collect();
        let asked: Vec<bool> = feeds.iter().map(|feed| feed.logits).collect();
        let (llama, scratch) = (&self.llama, &mut self.scratch);
        let logits = self.threads.run(|parallel| llama.forward(&mut feeds, scratch, parallel));
        drop(feeds);
        self.shared.active.store(self.slots.resident(), Ordering::Release);
        self.shared.rows.fetch_add(plan.values().sum::<usize>() as u64, Ordering::Relaxed);
        let answering = self.slots.planned(&plan).zip(asked).filter(|(_, asked)| *asked);
        for (((slot, _), _), logits) in answering.zip(logits.chunks_exact(llama.config.vocabulary)) {
            advance(slot, logits, &mut self.rng);
        }
    }
}

/// Takes a step of a sequence's job, and answers when that was the last one.
fn advance(slot: &mut Slot, logits: &[f32], rng: &mut StdRng) {
    let Some(work) = &mut slot.work else { return };
    let failure = match work.sampling().map(|sampling| draw(logits, sampling, rng)) {
        Some(Ok(draft)) => {
            if !work.push(draft) || work.is_ahead() {
                return;
            }
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    if let Some(work) = slot.work.take() {
        work.answer(logits, failure);
    }
}
