//! The engine's step loop, where work takes time: one task that owns what runs. It plans a step, waits as long as that
//! takes, and tells each request which of its sequences got a token; the request samples it. Whoever comes during a
//! step joins the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::cost_model::{CostModel, StepLoad};
use super::scheduler::{Pause, Scheduler};
use super::step_plan::{Key, Limits, Prompts, Queue, StepPlan};
use crate::support::timeline::Timeline;

/// A prompt, as far as the prefix cache goes.
pub trait CachedPrompt: Send {
    /// Leading tokens that the cache serves.
    fn cached(&self) -> usize;

    /// The first `upto` tokens have been computed.
    fn computed(&mut self, upto: usize);
}

/// A sequence that wants to run.
pub struct Newcomer {
    /// What it continues.
    pub prompt: Box<dyn CachedPrompt>,
    /// The length of that in tokens.
    pub length: usize,
    /// Tokens it may get.
    pub most: usize,
}

/// A token for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The sequence's place in its request.
    pub index: usize,
    /// Tokens of its prompt that the cache served.
    pub cached: usize,
}

enum Message {
    Join { seat: u64, sequences: Vec<Newcomer>, grants: mpsc::UnboundedSender<Vec<Grant>> },
    Leave { seat: u64, index: Option<usize> },
}

/// How many sequences an engine has (`vllm:num_requests_running` and `_waiting`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineLoad {
    /// Sequences in its batch.
    pub running: usize,
    /// Sequences that wait to join it.
    pub waiting: usize,
    /// Steps so far.
    pub steps: u64,
}

/// The way to a step loop. The loop ends with the last of these and the last request.
pub struct Stepper {
    messages: mpsc::UnboundedSender<Message>,
    next_seat: AtomicU64,
    load: watch::Receiver<EngineLoad>,
}

impl Stepper {
    /// Starts a loop that costs what `costs` says and heeds the pauses of `scheduler`.
    #[must_use]
    pub fn start(costs: CostModel, timeline: Timeline, scheduler: Arc<Scheduler>) -> Self {
        let (messages, inbox) = mpsc::unbounded_channel();
        let (load, watched) = watch::channel(EngineLoad::default());
        let queue = Queue::default();
        let state = Loop { costs, timeline, scheduler, inbox, queue, book: Book::default(), load };
        tokio::spawn(state.run());
        Self { messages, next_seat: AtomicU64::new(0), load: watched }
    }

    /// Hands the sequences of a request to the engine.
    #[must_use]
    pub fn join(&self, sequences: Vec<Newcomer>) -> Seat {
        let seat = self.next_seat.fetch_add(1, Ordering::Relaxed);
        let (sender, grants) = mpsc::unbounded_channel();
        let messages = self.messages.clone();
        // It cannot have ended while this is here.
        let _ = messages.send(Message::Join { seat, sequences, grants: sender });
        Seat { seat, messages, grants, next: None }
    }

    /// What it has now.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        *self.load.borrow()
    }

    /// Follows what it has.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<EngineLoad> {
        self.load.clone()
    }
}

/// A request's place in the engine. Dropping it takes what is left of the request out of the next step.
pub struct Seat {
    seat: u64,
    messages: mpsc::UnboundedSender<Message>,
    grants: mpsc::UnboundedReceiver<Vec<Grant>>,
    next: Option<Vec<Grant>>,
}

impl Seat {
    /// Returns once a step has given a token to a sequence of the request. What [`Seat::take`] has not taken stays.
    pub async fn granted(&mut self) {
        if self.next.is_none() {
            match self.grants.recv().await {
                Some(grants) => self.next = Some(grants),
                // Nothing is ever granted by an engine that has gone.
                None => std::future::pending().await,
            }
        }
    }

    /// The sequences that got a token in one step.
    pub fn take(&mut self) -> Vec<Grant> {
        self.next.take().unwrap_or_default()
    }

    /// A sequence is done.
    pub fn leave(&self, index: usize) {
        let _ = self.messages.send(Message::Leave { seat: self.seat, index: Some(index) });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Leave { seat: self.seat, index: None });
    }
}

/// What is known of each request and each prompt that is not computed.
#[derive(Default)]
struct Book {
    grants: HashMap<u64, mpsc::UnboundedSender<Vec<Grant>>>,
    prompts: HashMap<Key, Newcomer>,
    cached: HashMap<Key, usize>,
}

impl Prompts for Book {
    fn cached(&mut self, key: Key) -> usize {
        let cached = self.prompts[&key].prompt.cached();
        self.cached.insert(key, cached);
        cached
    }

    fn computed(&mut self, key: Key, upto: usize) {
        if let Some(newcomer) = self.prompts.get_mut(&key) {
            newcomer.prompt.computed(upto);
            if upto >= newcomer.length {
                self.prompts.remove(&key);
            }
        }
    }
}

struct Loop {
    costs: CostModel,
    timeline: Timeline,
    scheduler: Arc<Scheduler>,
    inbox: mpsc::UnboundedReceiver<Message>,
    queue: Queue,
    book: Book,
    load: watch::Sender<EngineLoad>,
}

impl Loop {
    async fn run(mut self) {
        let mut pauses = self.scheduler.changes();
        loop {
            let begin = self.timeline.now();
            if !self.steps(begin).await {
                return;
            }
            // Nothing can run: until something comes or goes, or a pause ends.
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.heed(message),
                    None => return,
                },
                changed = pauses.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Makes steps, one at the end of the other, as long as anything can run; false when nobody is left to ask for one.
    async fn steps(&mut self, mut begin: Instant) -> bool {
        loop {
            // Who comes or goes at this instant does so before the step.
            self.timeline.settled().await;
            loop {
                match self.inbox.try_recv() {
                    Ok(message) => self.heed(message),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return false,
                }
            }
            let pause = self.scheduler.paused();
            let sequences = if pause == Pause::No { self.costs.max_sequences } else { 0 };
            let limits = Limits { tokens: self.costs.max_batched_tokens, sequences };
            let plan = if pause == Pause::All { StepPlan::default() } else { self.queue.plan(limits, &mut self.book) };
            let idle = plan.load == StepLoad::default();
            self.publish(!idle);
            if idle {
                return true;
            }
            begin += self.costs.step(plan.load);
            self.timeline.until(begin).await;
            self.grant(&plan);
        }
    }

    fn heed(&mut self, message: Message) {
        match message {
            Message::Join { seat, sequences, grants } => {
                for (index, newcomer) in sequences.into_iter().enumerate() {
                    let key = Key { seat, index };
                    self.queue.join(key, newcomer.length, newcomer.most);
                    self.book.prompts.insert(key, newcomer);
                }
                self.book.grants.insert(seat, grants);
            }
            Message::Leave { seat, index } => {
                let gone = |key: Key| key.seat == seat && index.is_none_or(|index| index == key.index);
                self.queue.leave(gone);
                self.book.prompts.retain(|key, _| !gone(*key));
                self.book.cached.retain(|key, _| !gone(*key));
                if index.is_none() {
                    self.book.grants.remove(&seat);
                }
            }
        }
    }

    fn grant(&self, plan: &StepPlan) {
        for of_seat in plan.sampled.chunk_by(|a, b| a.seat == b.seat) {
            let cached = |key: &Key| self.book.cached.get(key).copied().unwrap_or_default();
            let grants = of_seat.iter().map(|key| Grant { index: key.index, cached: cached(key) }).collect();
            if let Some(sender) = self.book.grants.get(&of_seat[0].seat) {
                // A request that has gone has said so.
                let _ = sender.send(grants);
            }
        }
    }

    fn publish(&self, steps: bool) {
        let (running, waiting) = (self.queue.running(), self.queue.waiting());
        self.load.send_modify(|load| {
            *load = EngineLoad { running, waiting, steps: load.steps + u64::from(steps) };
        });
    }
}
