//! The task that speaks with Redis: everything in the order in which it happened, in batches, over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::jobs::Job;
use super::names::{Author, Names};
use super::record::decode;
use super::{Event, Fate, Fault, Reporter, SharedOptions};
use crate::history::{Indexes, Memory, PromptKey};

/// How long Redis may take to let a sidecar in, and to answer a batch.
const MOST: Duration = Duration::from_secs(1);

/// How long it is left alone after it did not.
const RETRY: Duration = Duration::from_secs(1);

/// Things that it is told and asked at once.
const BATCH: usize = 64;

/// What it takes to speak with Redis.
pub(super) struct Owner {
    client: Client,
    names: Names,
    options: SharedOptions,
    indexes: Option<Arc<Indexes>>,
    memory: Arc<Memory>,
    lags: Arc<AtomicBool>,
    reporter: Reporter,
    link: Option<MultiplexedConnection>,
    /// Whether it did as it was asked the last time, or was not yet.
    is_usable: bool,
    retry_at: Instant,
    /// The last version of this sidecar that was to be told.
    version: Option<Arc<str>>,
    /// Marks to be removed with the next batch.
    amends: Vec<Job>,
}

impl Owner {
    pub(super) fn new(
        client: Client,
        names: Names,
        options: SharedOptions,
        indexes: Option<Arc<Indexes>>,
        (memory, lags, reporter): (Arc<Memory>, Arc<AtomicBool>, Reporter),
    ) -> Self {
        let (link, retry_at, version, amends) = (None, Instant::now(), None, Vec::new());
        let is_usable = true;
        Self { client, names, options, indexes, memory, lags, reporter, link, is_usable, retry_at, version, amends }
    }

    /// Works until nobody has anything left to tell.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        self.connect().await;
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            if self.link.is_none() && Instant::now() >= self.retry_at {
                self.connect().await;
            }
            self.work(std::mem::take(&mut jobs)).await;
        }
    }

    async fn connect(&mut self) {
        match self.open().await {
            Ok(link) => {
                (self.link, self.is_usable) = (Some(link), true);
                self.lags.store(false, Ordering::Relaxed);
                self.reporter.tell(Event::Connected(true));
                tracing::info!(address = %self.client.get_connection_info().addr(), "the history is shared");
            }
            Err(fault) => self.lose(fault),
        }
    }

    async fn open(&self) -> Result<MultiplexedConnection, Fault> {
        let mut link = connect(&self.client).await?;
        let first = match &self.version {
            Some(version) => Job::Moved(Arc::clone(version)).command(&self.names, &self.options, |_| 0),
            None => redis::cmd("PING"),
        };
        let answer = timeout(MOST, first.query_async::<Value>(&mut link)).await;
        answer.map_err(|_| Fault::Timeout)?.map_err(|error| Fault::of(&error))?;
        Ok(link)
    }

    /// Does without Redis for a while.
    fn lose(&mut self, fault: Fault) {
        self.link = None;
        if std::mem::replace(&mut self.is_usable, false) {
            let address = self.client.get_connection_info().addr();
            tracing::warn!(%address, reason = fault.name(), "going on without the shared history");
        }
        self.lags.store(true, Ordering::Relaxed);
        self.retry_at = Instant::now() + RETRY;
        self.reporter.tell(Event::Failed(fault));
        self.reporter.tell(Event::Connected(false));
    }

    async fn work(&mut self, jobs: Vec<Job>) {
        for job in &jobs {
            if let Job::Moved(version) = job {
                self.version = Some(Arc::clone(version));
            }
        }
        let Some(mut link) = self.link.clone() else {
            return jobs.into_iter().for_each(|job| self.give_up(job, Fault::Connect));
        };
        let jobs: Vec<Job> = self.amends.drain(..).chain(jobs).collect();
        let mut batch = redis::pipe();
        batch.ignore_errors();
        for job in &jobs {
            let known = |key: &PromptKey| self.indexes.as_ref().map_or(0, |indexes| indexes.known(key));
            batch.add_command(job.command(&self.names, &self.options, known));
            // A long rollout takes a while, and others want to run.
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        let answers = timeout(MOST, batch.query_async::<Vec<RedisResult<Value>>>(&mut link)).await;
        let fault = match answers {
            Ok(Ok(answers)) if answers.len() == jobs.len() => {
                self.reporter.tell(Event::Answered(started.elapsed()));
                for (job, answer) in jobs.into_iter().zip(answers) {
                    self.settle(job, answer).await;
                }
                return;
            }
            Ok(Ok(_)) => Fault::Broken,
            Ok(Err(error)) => Some(Fault::of(&error)).filter(|fault| fault.is_final()).unwrap_or(Fault::Broken),
            Err(_) => Fault::Timeout,
        };
        self.lose(fault);
        jobs.into_iter().for_each(|job| self.give_up(job, fault));
    }

    async fn settle(&mut self, job: Job, answer: RedisResult<Value>) {
        let value = match answer {
            Ok(value) => value,
            Err(error) => {
                let fault = Fault::of(&error);
                self.reporter.tell(Event::Failed(fault));
                tracing::debug!(%error, "Redis refuses");
                return self.give_up(job, fault);
            }
        };
        match job {
            Job::Moved(_) | Job::Began { .. } | Job::Forgotten { .. } => {}
            Job::Finished { .. } => self.reporter.tell(Event::Record(Fate::Written)),
            Job::Expect { key, version, asked, waiting, .. } => {
                self.claimed(&key, &version, value, waiting).await;
                self.lags.store(asked.elapsed() > self.options.patience, Ordering::Relaxed);
            }
            Job::Read { key } => self.read(&key, value).await,
        }
    }

    /// What follows from it that this was not done, or may not have been.
    fn give_up(&mut self, job: Job, fault: Fault) {
        match job {
            Job::Finished { key, id, .. } => {
                self.reporter.tell(Event::Record(Fate::Failed));
                if fault.leaves_all_as_it_was() {
                    self.memory.regain(&key, id);
                    if !fault.is_final() {
                        self.amends.push(Job::Forgotten { key, id });
                    }
                }
            }
            Job::Expect { key, version, .. } => self.memory.hear(&key, &version, false),
            Job::Moved(_) | Job::Began { .. } | Job::Forgotten { .. } | Job::Read { .. } => {}
        }
    }

    /// Takes in what a claim brought.
    async fn claimed(&self, key: &PromptKey, version: &Arc<str>, value: Value, waiting: oneshot::Sender<()>) {
        let Some((is_selected, records)) = claim(value) else {
            self.memory.hear(key, version, false);
            return self.reporter.tell(Event::Failed(Fault::Reply));
        };
        let digest = key.digest();
        let is_late = waiting.is_closed();
        // The last to begin comes first, and is to be handed out first, as one that is taken in last.
        for (name, record) in records.into_iter().rev() {
            let event = match (self.names.author(&name), decode(&record, &digest)) {
                (Some(Author::Own(id)), _) => {
                    Event::Record(if self.memory.regain(key, id) { Fate::Claimed } else { Fate::Forgotten })
                }
                (_, Ok(rollout)) => {
                    self.memory.adopt(key, rollout, !is_late);
                    Event::Record(if is_late { Fate::ImportedLate } else { Fate::Imported })
                }
                (_, Err(error)) => Event::Refused(error),
            };
            self.reporter.tell(event);
            tokio::task::yield_now().await;
        }
        self.memory.hear(key, version, !is_selected);
        // Who has begun without does not listen any more.
        let _ = waiting.send(());
    }

    /// Indexes what others said.
    async fn read(&self, key: &PromptKey, value: Value) {
        let (Some(indexes), Some(texts)) = (&self.indexes, pairs(value)) else {
            return self.reporter.tell(Event::Failed(Fault::Reply));
        };
        let digest = key.digest();
        for (number, text) in texts {
            let Some(number) = std::str::from_utf8(&number).ok().and_then(|number| number.parse().ok()) else {
                self.reporter.tell(Event::Failed(Fault::Reply));
                continue;
            };
            match decode(&text, &digest) {
                Ok(rollout) => {
                    if indexes.add(key, number, rollout.tokens()) {
                        self.reporter.tell(Event::Record(Fate::Indexed));
                    }
                }
                Err(error) => {
                    self.reporter.tell(Event::Refused(error));
                    // It is not to be read again.
                    indexes.add(key, number, &[]);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

type Pair = (Vec<u8>, Vec<u8>);

/// Whether rollouts are selected, and those that were claimed.
fn claim(value: Value) -> Option<(bool, Vec<Pair>)> {
    let Value::Array(mut values) = value else { return None };
    let Some(Value::Int(is_selected)) = values.first() else { return None };
    let is_selected = *is_selected != 0;
    values.remove(0);
    Some((is_selected, pairs(Value::Array(values))?))
}

/// Names or numbers, each with what belongs to it.
fn pairs(value: Value) -> Option<Vec<Pair>> {
    let Value::Array(values) = value else { return None };
    let mut values = values.into_iter();
    let mut pairs = Vec::new();
    while let Some(name) = values.next() {
        let (Value::BulkString(name), Some(Value::BulkString(content))) = (name, values.next()) else { return None };
        pairs.push((name, content));
    }
    Some(pairs)
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, Fault> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(MOST)).set_response_timeout(None);
    match timeout(MOST, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(Err(error)) if Fault::of(&error) == Fault::Denied => Err(Fault::Denied),
        Ok(link) => link.map_err(|_| Fault::Connect),
        Err(_) => Err(Fault::Connect),
    }
}

/// The version of a Redis server.
pub(super) async fn version(client: &Client) -> Result<String, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(MOST)).set_response_timeout(Some(MOST));
    let mut link = client.get_multiplexed_async_connection_with_config(&config).await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut link).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.unwrap_or("of unknown version").trim().to_owned())
}
