//! History that several sidecars share through a Redis server. What they have of it is in memory; Redis is told behind
//! their backs and asked ahead, by one task, and nothing ever waits for it longer than [`SharedOptions::patience`].
//!
//! **Who hands out what.** A rollout that is over is handed out by its sidecar until it is sent to Redis, and from then on
//! by whoever claims it there, in one step that nobody can share. What was sent without an answer is handed out by nobody.
//! So each serves one new rollout, whatever fails.
//!
//! **What may be drawn.** Rows may be used only where that a rollout was there says nothing of its tokens. So a claim
//! takes others' rollouts only once their sidecar has left the version: all that ran under it was then told before, in
//! the order in which it happened. It takes those that began last, and is told whether rollouts of earlier versions are
//! under way anywhere. Where they are, or where nothing was heard, drafts are point masses. A record that came too late
//! for those it was sent for may be a long one, and is a point mass, too.

mod event;
mod jobs;
mod names;
mod owner;
mod record;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::Client;
use tokio::sync::{mpsc, oneshot};

pub use self::event::{Event, Fate, Fault};
use self::jobs::Job;
use self::names::Names;
use self::owner::Owner;
pub use self::record::RecordError;
use super::{Finish, History, Indexes, Lease, Memory, PromptKey, Rollout, RolloutId, Usage};
use crate::secret::Secret;
use crate::speculation::{Sampling, Scored};

/// How many things Redis may still have to be told.
const QUEUE: usize = 4096;

/// How to share.
#[derive(Debug, Clone)]
pub struct SharedOptions {
    /// The Redis server, which may hold a password.
    pub url: Secret,
    /// What all keys begin with.
    pub prefix: String,
    /// How long a prompt is kept after it was last told of.
    pub ttl: Duration,
    /// How long rollouts that are about to begin wait for old ones at most. Where that was too short, nobody waits until
    /// Redis has answered within it.
    pub patience: Duration,
    /// Whether rollouts are handed out.
    pub replays: bool,
    /// Whether what others said is indexed.
    pub texts: bool,
}

/// Why a Redis server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The URL, which is not repeated since it may hold a password.
    #[error("not a URL like redis://host:port, rediss://host:port or unix:/path")]
    Url,
    /// It does not answer.
    #[error("{address} does not answer as Redis does: {reason}")]
    Silent {
        /// Where.
        address: String,
        /// What was seen instead.
        reason: String,
    },
}

impl SharedOptions {
    /// Whether the URL is one.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<(), SharedError> {
        self.client().map(drop)
    }

    /// Asks Redis whether it is there. Gives back where and which version.
    ///
    /// # Errors
    /// When it is not, or the URL is none.
    pub async fn ask(&self) -> Result<String, SharedError> {
        let client = self.client()?;
        let address = client.get_connection_info().addr().to_string();
        owner::version(&client)
            .await
            .map(|version| format!("Redis {version} at {address}"))
            .map_err(|error| SharedError::Silent { address, reason: error.to_string() })
    }

    fn client(&self) -> Result<Client, SharedError> {
        Client::open(self.url.expose()).map_err(|_| SharedError::Url)
    }
}

/// The part of a shared history that is here.
#[derive(Debug)]
pub struct Shared {
    memory: Arc<Memory>,
    queue: mpsc::Sender<Job>,
    /// Whether it is in vain to wait.
    lags: Arc<AtomicBool>,
    reporter: Reporter,
    patience: Duration,
    replays: bool,
    texts: bool,
}

/// Whom to tell what happened.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Event) + Send + Sync>);

impl Reporter {
    /// One that calls this, from any thread.
    #[must_use]
    pub fn new(report: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

impl Shared {
    /// Keeps `most_bytes` here, indexes others' texts in `indexes`, and starts the task that speaks with Redis in the
    /// runtime that this is called in.
    ///
    /// # Errors
    /// When the URL is none. A server that does not answer is no error: it may do so later.
    pub fn start(
        options: SharedOptions,
        most_bytes: usize,
        indexes: Option<Arc<Indexes>>,
        reporter: Reporter,
    ) -> Result<Arc<Self>, SharedError> {
        let client = options.client()?;
        let names = Names::new(&options.prefix);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (memory, lags) = (Arc::new(Memory::shared(most_bytes)), Arc::new(AtomicBool::new(true)));
        let (patience, replays, texts) = (options.patience, options.replays, options.texts);
        let parts = (Arc::clone(&memory), Arc::clone(&lags), reporter.clone());
        let owner = Owner::new(client, names, options, indexes, parts);
        let (silent, told) = (Arc::clone(&lags), reporter.clone());
        tokio::spawn(async move {
            if AssertUnwindSafe(owner.run(jobs)).catch_unwind().await.is_err() {
                silent.store(true, Ordering::Relaxed);
                told.tell(Event::Panicked);
            }
        });
        Ok(Arc::new(Self { memory, queue, lags, reporter, patience, replays, texts }))
    }

    /// Tells the others that this sidecar has `version` now: all that it says of earlier ones was said.
    pub async fn moved(&self, version: &Arc<str>) {
        // The task ends with the last sender.
        let _ = self.queue.send(Job::Moved(Arc::clone(version))).await;
    }

    /// False if Redis lags too far behind.
    fn enqueue(&self, job: Job) -> bool {
        let is_queued = self.queue.try_send(job).is_ok();
        if !is_queued {
            self.reporter.tell(Event::Record(Fate::Dropped));
        }
        is_queued
    }
}

impl History for Shared {
    fn expect(&self, key: &PromptKey, version: &Arc<str>, count: usize) -> Option<BoxFuture<'static, ()>> {
        if self.texts {
            self.enqueue(Job::Read { key: key.clone() });
        }
        if !self.replays {
            return None;
        }
        let wanted = count.saturating_sub(self.memory.free(key, version));
        let (waiting, answered) = oneshot::channel();
        let (key, version) = (key.clone(), Arc::clone(version));
        self.enqueue(Job::Expect { key, version, wanted, asked: Instant::now(), waiting });
        if self.lags.load(Ordering::Relaxed) {
            self.reporter.tell(Event::Late);
            return None;
        }
        let (lags, reporter, patience) = (Arc::clone(&self.lags), self.reporter.clone(), self.patience);
        let wait = async move {
            // Where the task lets go of it without an answer there is nothing to wait for.
            if tokio::time::timeout(patience, answered).await.is_err() {
                lags.store(true, Ordering::Relaxed);
                reporter.tell(Event::Late);
            }
        };
        Some(wait.boxed())
    }

    fn begin(&self, key: &PromptKey, version: &Arc<str>, sampling: Option<Sampling>) -> RolloutId {
        let id = self.memory.begin(key, version, sampling);
        if self.replays {
            self.enqueue(Job::Began { key: key.clone(), id, version: Arc::clone(version) });
        }
        id
    }

    fn extend(&self, key: &PromptKey, id: RolloutId, version: &Arc<str>, scored: &[Scored]) -> bool {
        let is_kept = self.memory.extend(key, id, version, scored);
        if !is_kept && self.replays {
            self.enqueue(Job::Forgotten { key: key.clone(), id });
        }
        is_kept
    }

    fn finish(&self, key: &PromptKey, id: RolloutId, finish: Finish) -> bool {
        if !self.memory.finish(key, id, finish) {
            return false;
        }
        // From here on others may be handed it.
        let Some(rollout) = self.memory.lend(key, id) else { return true };
        if !self.enqueue(Job::Finished { key: key.clone(), id, rollout }) {
            self.memory.regain(key, id);
        }
        true
    }

    fn rollouts(&self, key: &PromptKey) -> Vec<Arc<Rollout>> {
        self.memory.rollouts(key)
    }

    fn take(&self, key: &PromptKey, version: &str) -> Option<Lease> {
        self.memory.take(key, version)
    }

    fn usage(&self) -> Usage {
        self.memory.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Tenant;

    #[tokio::test]
    async fn where_its_task_panics_a_sidecar_has_its_own_rollouts() {
        let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
        // Called by the task, since nothing listens there.
        let reporter = Reporter::new(move |event| {
            assert!(!matches!(event, Event::Failed(_)), "planted");
            events.send(event).unwrap();
        });
        let options = SharedOptions {
            url: "redis://127.0.0.1:1".parse().unwrap(),
            prefix: "test".to_owned(),
            ttl: Duration::from_secs(60),
            patience: Duration::from_secs(60),
            replays: true,
            texts: false,
        };
        let shared = Shared::start(options, 1 << 20, None, reporter).unwrap();
        assert_eq!(told.recv().await, Some(Event::Panicked));

        let key = PromptKey::new(Tenant::new(&[]), "m", &[1]);
        let (old, new): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let id = shared.begin(&key, &old, None);
        shared.extend(&key, id, &old, &[Scored { token: 7, logprob: -1.0, rank: None, top: vec![] }]);
        assert!(shared.finish(&key, id, Finish::Stop));
        shared.moved(&new).await;
        assert!(shared.expect(&key, &new, 1).is_none(), "nobody waits for it");
        assert_eq!(shared.take(&key, &new).map(|lease| lease.id), Some(id));
        assert!(shared.take(&key, &new).is_none());
    }
}
