//! The sequences of one request, generated together: a token each at every step, as far as the scheduler lets them.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::select;

use super::activity::Running;
use super::engine::Engine;
use super::faults::{Faults, Hang};
use super::reply::StreamFault;
use super::scheduler::Ticket;
use super::sequence::{Finish, Sequence};
use super::stepper::{Grant, Seat};

/// What an endpoint is called with besides the request's body.
pub struct Call {
    /// The engine that computes.
    pub engine: Arc<Engine>,
    /// What goes wrong, and how long things take.
    pub faults: Arc<Faults>,
    /// Where its stream goes wrong.
    pub stream_fault: StreamFault,
    /// Output tokens after which it is held, and the test's handle.
    pub token_hold: Option<(usize, Hang)>,
    /// Counts the request as running; a stream takes it along.
    pub running: Option<Running>,
}

/// A request in the engine. Dropping it aborts what is left.
pub struct Batch {
    faults: Arc<Faults>,
    /// `None` when all is done.
    ticket: Option<Ticket>,
    /// Aborts that were seen.
    aborted: BTreeSet<usize>,
    hold: Option<(usize, Hang)>,
    /// Its place in the step loop; none where steps take no time.
    seat: Option<Seat>,
    /// Sequences a prompt.
    n: usize,
    /// All of them, prompt by prompt.
    pub sequences: Vec<Sequence>,
}

impl Batch {
    /// Hands `sequences` to the engine, `n` for each of the external `ids`.
    #[must_use]
    pub fn start(call: &mut Call, ids: Vec<String>, n: usize, sequences: Vec<Sequence>) -> Self {
        let ticket = call.engine.scheduler.enter(ids.into_iter().map(|id| (id, n)).collect());
        let pace = call.engine.pace.as_ref();
        let seat = pace.map(|pace| pace.stepper.join(sequences.iter().map(Sequence::newcomer).collect()));
        let faults = Arc::clone(&call.faults);
        Self {
            faults,
            ticket: Some(ticket),
            aborted: BTreeSet::new(),
            hold: call.token_hold.take(),
            seat,
            n,
            sequences,
        }
    }

    /// Whether anything is left to generate.
    #[must_use]
    pub fn open(&self) -> bool {
        self.ticket.is_some()
    }

    /// Generates a token for each sequence that is not done, or ends those that were aborted. Returns which changed.
    pub async fn step(&mut self) -> Vec<usize> {
        let changed = self.try_step().await;
        let done = |index: &&usize| self.sequences[**index].finish.is_some();
        for (index, seat) in changed.iter().filter(done).zip(self.seat.iter().cycle()) {
            seat.leave(*index);
        }
        if self.sequences.iter().all(|sequence| sequence.finish.is_some()) {
            self.ticket = None;
            self.seat = None;
        }
        changed
    }

    async fn try_step(&mut self) -> Vec<usize> {
        let Some(ticket) = &self.ticket else { return Vec::new() };
        loop {
            let aborted = ticket.aborted();
            if aborted != self.aborted {
                self.aborted = aborted;
                let mut ended = Vec::new();
                for (index, sequence) in self.sequences.iter_mut().enumerate() {
                    if sequence.finish.is_none() && self.aborted.contains(&(index / self.n)) {
                        sequence.finish = Some(Finish::Abort);
                        ended.push(index);
                    }
                }
                return ended;
            }
            let hold = self.hold.take_if(|(at, _)| {
                self.sequences.iter().any(|sequence| sequence.finish.is_none() && sequence.output.len() == *at)
            });
            let ready = async {
                ticket.wait_for_turn().await;
                self.faults.before_token().await;
                if let Some((_, hang)) = hold {
                    hang.hold().await;
                }
                if let Some(seat) = &mut self.seat {
                    seat.granted().await;
                }
            };
            select(pin!(ready), pin!(ticket.wait_for_aborts(&self.aborted))).await;
            let mut stepped = Vec::new();
            let sequences = &mut self.sequences;
            let seat = &mut self.seat;
            let step = || {
                // Those that a step of the loop gave a token, or all where there is none.
                let grants = seat.as_mut().map(Seat::take);
                for (index, sequence) in sequences.iter_mut().enumerate() {
                    let grant = |grants: &Vec<Grant>| grants.iter().find(|grant| grant.index == index).copied();
                    let granted = grants.as_ref().map(grant);
                    if sequence.finish.is_none() && granted.is_none_or(|grant| grant.is_some()) {
                        sequence.admitted = granted.flatten().map(|grant| grant.cached);
                        sequence.step();
                        stepped.push(index);
                    }
                }
            };
            if ticket.run(&self.aborted, step) {
                return stepped;
            }
        }
    }

    /// Generates to the end.
    pub async fn finish(&mut self) {
        while self.open() {
            self.step().await;
        }
    }
}
