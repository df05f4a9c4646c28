//! What a trainer's control requests do to rollouts under way: pauses, weight updates, aborts.
//!
//! Rollouts take their steps in turns, each under one version of the weights: a proposal is verified and decided within
//! a turn. A request that may change the weights waits until the turns under way are over, and none begins before the
//! server has answered it. So no step is begun under one version and ended under another, and nothing is thrown away
//! for having taken long, which would favour the tokens that are decided quickly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use crate::telemetry::ControlMetrics;

/// How long a control request waits for the turns under way. They end by themselves unless the server has stopped, by a
/// request that did not come this way; then they are broken off.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of rollouts under way when generation pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseMode {
    /// They end at once with what they have.
    Abort,
    /// They are finished first.
    Wait,
    /// They stand still and go on when generation resumes.
    Keep,
}

/// The state that all rollouts and all control requests share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Read for a turn, written for a control request. Readers take it once a step, which is a request to the server,
    /// and do not wait for each other; only a control request, which is there to stop them, makes them wait.
    gate: Arc<RwLock<()>>,
    state: watch::Sender<State>,
    members: Mutex<Members>,
    /// Told when a member leaves.
    departure: Notify,
    metrics: ControlMetrics,
}

#[derive(Debug, Clone)]
struct State {
    paused: bool,
    /// Control requests that want the turns to be over.
    holds: usize,
    /// How many times turns had to be broken off.
    breaks: u64,
    /// Members from this one on wait until those before it are done.
    barrier: Option<u64>,
    version: Arc<str>,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    running: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    id: Arc<str>,
    aborted: watch::Sender<bool>,
}

impl Control {
    /// A control plane under which nothing has happened yet.
    #[must_use]
    pub fn new(metrics: ControlMetrics) -> Self {
        metrics.policy("default");
        let state = State { paused: false, holds: 0, breaks: 0, barrier: None, version: Arc::from("default") };
        Self {
            shared: Arc::new(Shared {
                gate: Arc::default(),
                state: watch::Sender::new(state),
                members: Mutex::default(),
                departure: Notify::new(),
                metrics,
            }),
        }
    }

    /// Adds a rollout that can be aborted by the request's `id`.
    #[must_use]
    pub fn enter(&self, id: Arc<str>) -> Member {
        let (abort, aborted) = watch::channel(false);
        let mut members = self.members();
        let key = members.next;
        members.next += 1;
        members.running.insert(key, Entry { id, aborted: abort });
        Member { control: self.clone(), key, aborted }
    }

    /// The policy version that the server's weights are believed to have.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        self.shared.state.borrow().version.clone()
    }

    /// Waits until the version is another than `known`, and gives it back.
    pub async fn version_after(&self, known: &str) -> Arc<str> {
        let mut state = self.shared.state.subscribe();
        // The sender lives in `self`.
        let _ = state.wait_for(|state| *state.version != *known).await;
        self.version()
    }

    /// Notes the version that the server was told or found to have.
    pub fn set_version(&self, version: &str) {
        self.shared.state.send_if_modified(|state| {
            let changes = *state.version != *version;
            if changes {
                state.version = Arc::from(version);
                self.shared.metrics.policy(version);
            }
            changes
        });
    }

    /// Notes the version that a reply bears. One that nobody announced means that the trainer reached the server
    /// without this sidecar.
    pub fn observe_version(&self, version: &str) {
        if *self.version() != *version {
            tracing::warn!(version, "a reply bears a policy version that was not announced here");
            self.shared.metrics.unannounced_versions.inc();
            self.set_version(version);
        }
    }

    /// Whether generation is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.state.borrow().paused
    }

    /// Ends the rollouts of these requests, or all of them; returns how many.
    pub fn abort(&self, ids: Option<&[String]>) -> usize {
        let members = self.members();
        let wanted = |entry: &&Entry| ids.is_none_or(|ids| ids.iter().any(|id| **id == *entry.id));
        let mut count = 0;
        for entry in members.running.values().filter(wanted) {
            count += usize::from(!entry.aborted.send_replace(true));
        }
        self.shared.metrics.aborted_rollouts.inc_by(count as u64);
        count
    }

    /// Waits until no rollout is in the middle of a step; none takes one while the hold lasts.
    pub async fn hold(&self) -> Hold {
        self.shared.state.send_modify(|state| state.holds += 1);
        let wish = Wish(self.clone());
        let gate = Arc::clone(&self.shared.gate).write_owned();
        let gate = match tokio::time::timeout(PATIENCE, gate).await {
            Ok(gate) => gate,
            Err(_) => {
                tracing::warn!("steps under way do not end: breaking them off");
                self.shared.metrics.broken_turns.inc();
                self.shared.state.send_modify(|state| state.breaks += 1);
                Arc::clone(&self.shared.gate).write_owned().await
            }
        };
        Hold { _gate: gate, _wish: wish }
    }

    /// Does to the rollouts what a pause does before the server is told of it.
    ///
    /// Rollouts that stand still already cannot be finished first: each of their steps is a new request to the server,
    /// which takes none.
    pub async fn pause(&self, mode: PauseMode) -> Pause {
        let mode = if mode == PauseMode::Wait && self.is_paused() { PauseMode::Keep } else { mode };
        let barrier = match mode {
            PauseMode::Abort => {
                self.abort(None);
                None
            }
            PauseMode::Keep => None,
            PauseMode::Wait => {
                let before = self.members().next;
                self.shared.state.send_modify(|state| state.barrier = Some(before));
                let barrier = Barrier(self.clone());
                self.departed(before).await;
                Some(barrier)
            }
        };
        Pause { control: self.clone(), hold: self.hold().await, _barrier: barrier }
    }

    /// Lets rollouts go on.
    pub fn resume(&self) {
        self.shared.state.send_if_modified(|state| std::mem::take(&mut state.paused));
        self.shared.metrics.paused.set(0);
    }

    /// Waits until generation is no longer paused.
    pub async fn resumed(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender lives in `self`.
        let _ = state.wait_for(|state| !state.paused).await;
    }

    /// Waits until all members before `before` are gone.
    async fn departed(&self, before: u64) {
        loop {
            let departure = self.shared.departure.notified();
            if self.members().running.range(..before).next().is_none() {
                return;
            }
            departure.await;
        }
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Members> {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rollout under way. Leaves when it is dropped.
#[derive(Debug)]
pub struct Member {
    control: Control,
    key: u64,
    aborted: watch::Receiver<bool>,
}

impl Member {
    /// Completes when the rollout is to end with what it has.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut aborted = self.aborted.clone();
        async move {
            // The sender is dropped only with this member.
            if aborted.wait_for(|aborted| *aborted).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a step may be taken.
    pub async fn turn(&self) -> Turn {
        let shared = &self.control.shared;
        let mut state = shared.state.subscribe();
        let may_go =
            |state: &State| !state.paused && state.holds == 0 && state.barrier.is_none_or(|barrier| self.key < barrier);
        loop {
            let _ = state.wait_for(may_go).await;
            let gate = Arc::clone(&shared.gate).read_owned().await;
            let now = state.borrow_and_update().clone();
            if may_go(&now) {
                return Turn { _gate: gate, breaks: now.breaks, version: now.version, state };
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.control.members().running.remove(&self.key);
        self.control.shared.departure.notify_waiters();
    }
}

/// The time in which a rollout takes a step, under one version of the weights.
#[derive(Debug)]
pub struct Turn {
    _gate: OwnedRwLockReadGuard<()>,
    state: watch::Receiver<State>,
    breaks: u64,
    version: Arc<str>,
}

impl Turn {
    /// The version that the server's weights are believed to have.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Completes when a control request waits for this turn to end: time to leave off at the next token.
    pub fn is_wanted(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until(|state, _| state.holds > 0)
    }

    /// Completes when the step must be left off wherever it stands.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + use<> {
        self.until(|state, breaks| state.breaks != breaks)
    }

    fn until(&self, reached: fn(&State, u64) -> bool) -> impl Future<Output = ()> + Send + use<> {
        let (mut state, breaks) = (self.state.clone(), self.breaks);
        async move {
            if state.wait_for(|state| reached(state, breaks)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A time without turns.
#[derive(Debug)]
pub struct Hold {
    // Let go in this order: who waits for the gate must find nobody wishing for it.
    _wish: Wish,
    _gate: OwnedRwLockWriteGuard<()>,
}

#[derive(Debug)]
struct Wish(Control);

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.shared.state.send_modify(|state| state.holds -= 1);
    }
}

#[derive(Debug)]
struct Barrier(Control);

impl Drop for Barrier {
    fn drop(&mut self) {
        self.0.shared.state.send_modify(|state| state.barrier = None);
    }
}

/// A pause that the server is about to be told of. Dropped, it never was.
#[derive(Debug)]
pub struct Pause {
    control: Control,
    hold: Hold,
    _barrier: Option<Barrier>,
}

impl Pause {
    /// The server has paused.
    pub fn keep(self) {
        self.control.shared.state.send_modify(|state| state.paused = true);
        self.control.shared.metrics.paused.set(1);
        drop(self.hold);
    }
}

#[cfg(test)]
mod tests;
