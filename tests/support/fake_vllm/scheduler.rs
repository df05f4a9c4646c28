//! Which requests the engine may work on: what a pause freezes or queues, and what an abort ends.
//!
//! A step of a request runs inside the scheduler's lock. So once a pause has returned, no frozen request has moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

/// What a pause lets run (`PauseState` in `vllm/v1/core/sched/interface.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Everything.
    No,
    /// What has begun; what comes anew waits.
    New,
    /// Nothing.
    All,
}

/// `mode` of `/pause` and `/sleep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseMode {
    /// Ends every request.
    Abort,
    /// Lets what runs come to its end.
    Wait,
    /// Freezes what runs.
    Keep,
}

/// One HTTP request's sequences, by the id the engine knows each prompt's under.
struct Tracked {
    /// (external id, sequences) for each prompt.
    groups: Vec<(String, usize)>,
    aborted: BTreeSet<usize>,
    /// It has made a step, or may have.
    begun: bool,
}

struct State {
    pause: Pause,
    next: u64,
    requests: BTreeMap<u64, Tracked>,
}

impl State {
    fn allows(&self, begun: bool) -> bool {
        self.pause == Pause::No || (begun && self.pause == Pause::New)
    }
}

/// The scheduler of a server.
pub struct Scheduler {
    state: watch::Sender<State>,
}

impl Scheduler {
    /// Nothing is paused.
    #[must_use]
    pub fn new() -> Self {
        Self { state: watch::Sender::new(State { pause: Pause::No, next: 0, requests: BTreeMap::new() }) }
    }

    /// Tracks a request until the ticket is dropped. `groups` are its prompts' external ids and numbers of sequences.
    #[must_use]
    pub fn enter(self: &Arc<Self>, groups: Vec<(String, usize)>) -> Ticket {
        let mut key = 0;
        self.state.send_modify(|state| {
            key = state.next;
            state.next += 1;
            state.requests.insert(key, Tracked { groups, aborted: BTreeSet::new(), begun: false });
        });
        Ticket { scheduler: Arc::clone(self), key }
    }

    /// Pauses. With [`PauseMode::Wait`] it returns when nothing that had begun is left.
    pub async fn pause(&self, mode: PauseMode) {
        self.state.send_modify(|state| {
            state.pause = if mode == PauseMode::Keep { Pause::All } else { Pause::New };
            if mode == PauseMode::Abort {
                state.requests.values_mut().for_each(|request| request.aborted.extend(0..request.groups.len()));
            }
        });
        if mode == PauseMode::Wait {
            let drained = |state: &State| !state.requests.values().any(|request| request.begun);
            self.state.subscribe().wait_for(drained).await.unwrap();
        }
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.state.send_modify(|state| state.pause = Pause::No);
    }

    /// What is paused.
    #[must_use]
    pub fn paused(&self) -> Pause {
        self.state.borrow().pause
    }

    /// Aborts the requests with these external ids.
    pub fn abort(&self, ids: &[String]) {
        self.state.send_modify(|state| {
            for request in state.requests.values_mut() {
                let named = request.groups.iter().enumerate().filter(|(_, (id, _))| ids.contains(id));
                request.aborted.extend(named.map(|(group, _)| group));
            }
        });
    }

    /// Aborts everything, and returns how many ids vLLM would count: a sequence has one, and so have siblings together.
    pub fn abort_all(&self) -> usize {
        let mut count = 0;
        self.state.send_modify(|state| {
            for request in state.requests.values_mut() {
                let groups = request.groups.iter().enumerate().filter(|(group, _)| !request.aborted.contains(group));
                count += groups.map(|(_, (_, n))| n + usize::from(*n > 1)).sum::<usize>();
                request.aborted.extend(0..request.groups.len());
            }
        });
        count
    }

    /// Requests that have begun and are not done.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.state.borrow().requests.values().filter(|request| request.begun).count()
    }

    /// Requests that a pause keeps from beginning.
    #[must_use]
    pub fn queued(&self) -> usize {
        queued(&self.state.borrow())
    }

    /// Follows what happens to pauses and requests.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.state.subscribe())
    }

    /// Returns once at least `count` requests wait for a pause to end.
    pub async fn wait_for_queued(&self, count: usize) {
        self.state.subscribe().wait_for(|state| queued(state) >= count).await.unwrap();
    }

    /// Returns once a pause, of whatever kind, has been asked for.
    pub async fn wait_until_paused(&self) {
        self.state.subscribe().wait_for(|state| state.pause != Pause::No).await.unwrap();
    }
}

fn queued(state: &State) -> usize {
    if state.pause == Pause::No { 0 } else { state.requests.values().filter(|request| !request.begun).count() }
}

/// What happens to a scheduler.
pub struct Changes(watch::Receiver<State>);

impl Changes {
    /// Returns once something has happened since the last call.
    ///
    /// # Errors
    /// When the scheduler has gone.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

/// A request's place in the scheduler.
pub struct Ticket {
    scheduler: Arc<Scheduler>,
    key: u64,
}

impl Ticket {
    /// The prompts of the request that were aborted.
    #[must_use]
    pub fn aborted(&self) -> BTreeSet<usize> {
        self.scheduler.state.borrow().requests[&self.key].aborted.clone()
    }

    /// Returns once more prompts were aborted than `known`.
    pub async fn wait_for_aborts(&self, known: &BTreeSet<usize>) {
        let more = |state: &State| state.requests[&self.key].aborted.len() > known.len();
        self.scheduler.state.subscribe().wait_for(more).await.unwrap();
    }

    /// Returns once the request may make a step.
    pub async fn wait_for_turn(&self) {
        let allowed = |state: &State| state.allows(state.requests[&self.key].begun);
        self.scheduler.state.subscribe().wait_for(allowed).await.unwrap();
    }

    /// Makes a step, unless a pause or an abort of anything but `known` forbids it. True if it was made.
    pub fn run(&self, known: &BTreeSet<usize>, step: impl FnOnce()) -> bool {
        let mut ran = false;
        self.scheduler.state.send_if_modified(|state| {
            let request = &state.requests[&self.key];
            if request.aborted.len() > known.len() || !state.allows(request.begun) {
                return false;
            }
            ran = true;
            step();
            let request = state.requests.get_mut(&self.key).unwrap();
            !std::mem::replace(&mut request.begun, true)
        });
        ran
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.scheduler.state.send_modify(|state| drop(state.requests.remove(&self.key)));
    }
}
