//! What the rest of the program holds of the model thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::backend::{Backend, PAGE};
use super::device::{self, Chosen, Device, Fallback};
use super::error::ModelError;
use super::job::{Job, Reply};
use super::options::ModelOptions;
use super::sample::{DraftSampling, DraftedToken};
use super::slot::common_prefix;
use super::weights::ModelSource;
use super::worker::{Command, Shared, Worker};
use crate::speculation::TokenId;

/// A model in memory that does not run yet.
pub struct LoadedModel {
    pub(super) backend: Box<dyn Backend>,
    pub(super) options: ModelOptions,
    pub(super) device: Device,
    pub(super) fallback: Option<Fallback>,
}

/// A handle to a running model thread. Dropping the last handle and the last sequence ends the thread, after the pass it
/// is in, and waits for that.
#[derive(Clone)]
pub struct DraftModel {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    vocabulary: usize,
    max_positions: usize,
    pages: usize,
    device: Arc<Device>,
    fallback: Option<Arc<Fallback>>,
    /// After `commands`, by whose end the thread ends.
    _thread: Arc<Thread>,
}

/// Waits for the thread when dropped: the libraries that it calls (CUDA's) are not to be called while the process ends.
struct Thread(Option<JoinHandle<()>>);

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic was counted by the thread itself.
            let _ = thread.join();
        }
    }
}

/// A rollout's place in the model. Dropping it frees the place; dropping one of its futures abandons that call.
pub struct Sequence {
    number: u64,
    model: DraftModel,
    /// The thread watches for its end; taken on drop.
    alive: Option<Arc<()>>,
    /// The context as the thread knows it, so that only what is new is sent.
    known: Vec<TokenId>,
}

impl DraftModel {
    /// Reads a model into the memory of what is to compute. Takes seconds and blocks.
    ///
    /// # Errors
    /// Anything but [`ModelError::Stopped`] and the errors of a context.
    pub fn load(source: &ModelSource, options: &ModelOptions) -> Result<LoadedModel, ModelError> {
        let Chosen { backend, device, fallback } = device::open(source, options)?;
        Ok(LoadedModel { backend, options: options.clone(), device, fallback })
    }

    /// What computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Why it is not the GPU that is there, if it is not.
    #[must_use]
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_deref()
    }

    /// Ids that the model has logits for.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary
    }

    /// The longest context, in tokens: what the model was made for, the options allow and its cache holds.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Sequences that hold keys and values.
    #[must_use]
    pub fn active_sequences(&self) -> usize {
        self.shared.active.load(Ordering::Acquire)
    }

    /// Token rows that went through the model since it started.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Tokens drafted ahead that later drafts began with, since the model started.
    #[must_use]
    pub fn used_ahead(&self) -> u64 {
        self.shared.used_ahead.load(Ordering::Relaxed)
    }

    /// Pages of the KV cache, 16 positions each.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Pages that sequences hold; one that several share counts once.
    #[must_use]
    pub fn pages_held(&self) -> usize {
        self.shared.pages_held.load(Ordering::Relaxed)
    }

    /// How often a sequence lost its pages to another, since the model started.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shared.evictions.load(Ordering::Relaxed)
    }

    /// Tokens that were not run because pages of other sequences, or of earlier ones, held them, since the model started.
    #[must_use]
    pub fn recalled(&self) -> u64 {
        self.shared.recalled.load(Ordering::Relaxed)
    }

    /// Failures that ended the model thread: at most one.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// A new, empty sequence. Free until its first call.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        let number = self.shared.next_sequence.fetch_add(1, Ordering::Relaxed);
        Sequence { number, model: self.clone(), alive: Some(Arc::new(())), known: Vec::new() }
    }

    /// Has the model thread panic, for tests of what happens then.
    #[doc(hidden)]
    pub fn panic(&self) {
        // A queue that is full is one that the test did not mean to fill.
        let _ = self.commands.try_send(Command::Panic);
    }

    /// Ends the model thread after the pass it is in, for tests of what happens without it. Every pending and later
    /// call gets [`ModelError::Stopped`].
    #[doc(hidden)]
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // A full queue means that the thread is about to look anyway.
        let _ = self.commands.try_send(Command::Wake);
    }
}

impl LoadedModel {
    /// Starts the model thread.
    ///
    /// # Errors
    /// [`ModelError::Threads`].
    pub fn spawn(self) -> Result<DraftModel, ModelError> {
        let Self { backend, options, device, fallback } = self;
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel(options.queue.max(1));
        let limit = options.max_positions.unwrap_or(usize::MAX);
        let (vocabulary, pages) = (backend.config().vocabulary, backend.pages());
        let max_positions = backend.config().max_positions.min(limit).min(pages.saturating_mul(PAGE));
        let worker = Worker::new(backend, &options, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("draft-model".into())
            .spawn(move || worker.run(receiver))
            .map_err(|error| ModelError::Threads(error.to_string()))?;
        Ok(DraftModel {
            commands,
            shared,
            vocabulary,
            max_positions,
            pages,
            device: Arc::new(device),
            fallback: fallback.map(Arc::new),
            _thread: Arc::new(Thread(Some(thread))),
        })
    }
}

impl Sequence {
    /// Drafts up to `sampling.length` tokens after `context`: fewer where the model's positions end or `sampling` says
    /// so.
    ///
    /// What the context has in common with the last one, drafts included, is not computed again. Where the context is
    /// the last one of [`Sequence::draft_ahead`] and then tokens drafted from there, the draft begins with the rest of
    /// those, if they are drawn from the same distributions.
    ///
    /// # Errors
    /// [`ModelError::EmptyContext`], [`ModelError::ContextTooLong`], [`ModelError::UnknownToken`],
    /// [`ModelError::NoFiniteLogit`], [`ModelError::Stopped`].
    pub async fn draft(
        &mut self,
        context: &[TokenId],
        sampling: DraftSampling,
    ) -> Result<Vec<DraftedToken>, ModelError> {
        let sampling = self.model.fit(context, sampling)?;
        if sampling.length == 0 {
            return Ok(Vec::new());
        }
        self.ask(context, |reply| Job::Draft { sampling, reply }).await
    }

    /// The logits after `context`, of the whole vocabulary.
    ///
    /// # Errors
    /// As for [`Sequence::draft`].
    pub async fn logits(&mut self, context: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        self.model.check_length(context)?;
        self.ask(context, |reply| Job::Logits { reply }).await
    }

    /// Has `context` run through the model when it has time, so that a later draft need not. Never waits: a context
    /// that does not fit, or a full queue, makes it do nothing.
    pub fn prepare(&mut self, context: &[TokenId]) {
        if self.model.check_length(context).is_ok() {
            self.suggest(context, Job::Prepare);
        }
    }

    /// Has tokens drafted after `context` for a later [`Sequence::draft`] to begin with, when nobody waits for anything
    /// else. Never waits itself, as [`Sequence::prepare`] does not; the sequence's next call, whatever it is, ends it.
    ///
    /// The first token counts for `sampling.length` but not for the forecast of `sampling.stop`.
    pub fn draft_ahead(&mut self, context: &[TokenId], sampling: DraftSampling) {
        if let Ok(sampling) = self.model.fit(context, sampling)
            && sampling.length > 0
        {
            self.suggest(context, Job::Ahead { sampling });
        }
    }

    /// Gives the thread a job that nobody waits for.
    fn suggest(&mut self, context: &[TokenId], job: Job) {
        let Self { number, model, alive, known } = self;
        let Some(alive) = alive else { return };
        if let (Ok(permit), Ok((keep, append))) = (model.commands.try_reserve(), model.news(known, context)) {
            let (sequence, alive) = (*number, Arc::downgrade(alive));
            permit.send(Command::Work { sequence, alive, keep, append, job });
            learn(known, keep, context);
        }
    }

    async fn ask<T>(&mut self, context: &[TokenId], job: impl FnOnce(Reply<T>) -> Job) -> Result<T, ModelError> {
        let Self { number, model, alive, known } = self;
        let alive = alive.as_ref().map(Arc::downgrade).unwrap_or_default();
        let (keep, append) = model.news(known, context)?;
        let (reply, answer) = oneshot::channel();
        let permit = model.commands.reserve().await.map_err(|_| ModelError::Stopped)?;
        // No await between these two: `known` is what was sent, even if this future is dropped.
        permit.send(Command::Work { sequence: *number, alive, keep, append, job: job(reply) });
        learn(known, keep, context);
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(ModelError::Stopped)),
            // A command that was sent while the thread ended is never read.
            () = model.commands.closed() => Err(ModelError::Stopped),
        }
    }
}

impl DraftModel {
    fn check_length(&self, context: &[TokenId]) -> Result<(), ModelError> {
        match context.len() {
            0 => Err(ModelError::EmptyContext),
            length if length > self.max_positions => {
                Err(ModelError::ContextTooLong { length, limit: self.max_positions })
            }
            _ => Ok(()),
        }
    }

    /// What of `sampling` there are positions for after `context`.
    fn fit(&self, context: &[TokenId], sampling: DraftSampling) -> Result<DraftSampling, ModelError> {
        self.check_length(context)?;
        // The last draft is never fed back, so it needs no position.
        let length = sampling.length.min(self.max_positions - context.len() + 1);
        Ok(DraftSampling { length, ..sampling })
    }

    /// How much of `known` the context keeps, and what it adds.
    fn news(&self, known: &[TokenId], context: &[TokenId]) -> Result<(usize, Vec<TokenId>), ModelError> {
        let keep = common_prefix(known, context.iter().copied());
        let append = context[keep..].to_vec();
        match append.iter().find(|token| **token as usize >= self.vocabulary) {
            Some(&token) => Err(ModelError::UnknownToken { token, vocabulary: self.vocabulary }),
            None => Ok((keep, append)),
        }
    }

    /// Keeps the thread from doing anything until the result is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (release, until) = std::sync::mpsc::channel();
        assert!(self.commands.try_send(Command::Hold(until)).is_ok());
        release
    }

    /// Gone when the thread is.
    #[cfg(test)]
    pub(super) fn shared(&self) -> std::sync::Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Returns when the thread has done all that it was asked before.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        assert!(self.commands.try_send(Command::Settle(done)).is_ok());
        assert!(settled.await.is_err());
    }
}

fn learn(known: &mut Vec<TokenId>, keep: usize, context: &[TokenId]) {
    known.truncate(keep);
    known.extend_from_slice(&context[keep..]);
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.alive = None;
        // If the queue is full, the thread is awake and will see it.
        let _ = self.model.commands.try_send(Command::Wake);
    }
}

impl fmt::Debug for DraftModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vocabulary, max_positions, .. } = self;
        write!(f, "DraftModel {{ vocabulary: {vocabulary}, max_positions: {max_positions} }}")
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadedModel {{ config: {:?} }}", self.backend.config())
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence {{ number: {}, tokens: {} }}", self.number, self.known.len())
    }
}
