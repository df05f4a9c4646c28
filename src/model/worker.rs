//! The model thread: owner of the backend, every sequence and the random numbers.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;

use super::backend::{Backend, Feed};
use super::error::ModelError;
use super::job::{Answer, Job};
use super::options::ModelOptions;
use super::schedule::Slots;
use crate::speculation::TokenId;

/// What handles tell the thread.
pub(super) enum Command {
    /// A sequence's context and what it wants next.
    Work { sequence: u64, alive: Weak<()>, keep: usize, append: Vec<TokenId>, job: Job },
    /// A sequence was dropped, or the thread was told to stop: look around.
    Wake,
    /// A fault, for the tests that nothing hangs after one.
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
    /// Sequences that hold keys and values.
    pub(super) active: AtomicUsize,
    /// Pages that sequences hold.
    pub(super) pages_held: AtomicUsize,
    /// As in [`super::schedule::Counters`].
    pub(super) evictions: AtomicU64,
    /// The same.
    pub(super) recalled: AtomicU64,
    /// The same.
    pub(super) rows: AtomicU64,
    /// The same.
    pub(super) used_ahead: AtomicU64,
    /// Steps that failed, or panics: the first ends the thread.
    pub(super) failures: AtomicU64,
    /// Set once, to end the thread.
    pub(super) stop: AtomicBool,
    /// The next sequence's number.
    pub(super) next_sequence: AtomicU64,
}

/// The thread's state.
pub(super) struct Worker {
    backend: Box<dyn Backend>,
    rows_per_pass: usize,
    slots: Slots,
    rng: StdRng,
    shared: Arc<Shared>,
    #[cfg(test)]
    unsettled: Vec<tokio::sync::oneshot::Sender<()>>,
}

/// Leaves no figures of what went with the thread, and says and counts it when that dies of a panic.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        self.0.active.store(0, Ordering::Release);
        self.0.pages_held.store(0, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the draft model's thread panicked; rollouts go on without it");
        }
    }
}

impl Worker {
    pub(super) fn new(backend: Box<dyn Backend>, options: &ModelOptions, shared: Arc<Shared>) -> Self {
        Self {
            slots: Slots::new(backend.pages()),
            rows_per_pass: options.rows_per_pass.max(backend.rows_at_once()),
            backend,
            rng: options.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64),
            shared,
            #[cfg(test)]
            unsettled: Vec::new(),
        }
    }

    /// Serves commands until the last handle is gone or the thread is told to stop. Whatever waits then learns of it
    /// by its channel closing.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let _obituary = Obituary(Arc::clone(&self.shared));
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
            if let Err(error) = self.pass() {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the draft model failed; rollouts go on without it");
                return;
            }
            self.slots.sweep();
            self.publish();
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Work { sequence, alive, keep, append, job } => {
                self.backend.learn(&append);
                self.slots.assign(sequence, alive, keep, &append, job);
                self.answer();
            }
            Command::Wake => {}
            Command::Panic => panic!("asked to"),
            #[cfg(test)]
            Command::Hold(until) => drop(until.recv()),
            #[cfg(test)]
            Command::Settle(done) => self.unsettled.push(done),
        }
    }

    /// Sends the answers that there are. Whoever gets one finds its rows counted.
    fn answer(&mut self) {
        if !self.slots.answers.is_empty() {
            self.publish();
            self.slots.answers.drain(..).for_each(Answer::send);
        }
    }

    fn publish(&self) {
        let (shared, counters) = (&self.shared, &self.slots.counters);
        shared.active.store(self.slots.resident(), Ordering::Release);
        shared.pages_held.store(self.slots.pool.held(), Ordering::Relaxed);
        shared.evictions.store(counters.evictions, Ordering::Relaxed);
        shared.recalled.store(counters.recalled, Ordering::Relaxed);
        shared.rows.store(counters.rows, Ordering::Relaxed);
        shared.used_ahead.store(counters.used_ahead, Ordering::Relaxed);
    }

    /// One step of the backend, then the answers that it completes.
    fn pass(&mut self) -> Result<(), ModelError> {
        let plan = self.slots.plan(self.rows_per_pass);
        if plan.is_empty() {
            return Ok(());
        }
        let tokens: Vec<_> = self.slots.planned(&plan).map(|(slot, rows)| slot.next_tokens(rows)).collect();
        let planned = self.slots.planned(&plan).zip(&tokens);
        let feeds: Vec<_> = planned
            .map(|((slot, rows), tokens)| Feed {
                pages: slot.table.pages(),
                start: slot.table.len(),
                tokens,
                then: slot.then(rows),
            })
            .collect();
        let outcomes = self.backend.step(&feeds, &mut self.rng)?;
        debug_assert_eq!(outcomes.len(), feeds.len());
        for ((sequence, tokens), outcome) in plan.keys().zip(&tokens).zip(outcomes) {
            self.slots.advance(*sequence, tokens, outcome);
        }
        self.answer();
        Ok(())
    }
}
