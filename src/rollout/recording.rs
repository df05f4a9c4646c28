//! A rollout's tokens on their way into the history.

use super::past::Group;
use super::sequence::FinishReason;
use super::versions::Versions;
use crate::history::{Finish, RolloutId};
use crate::speculation::{Entry, Scored};

/// Takes down what a rollout commits. A rollout that is given up without a finish was aborted.
#[derive(Debug)]
pub(super) struct Recording {
    group: Group,
    rows: usize,
    state: State,
    /// Committed and not yet written, after so many that are.
    fresh: Vec<Scored>,
    written: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Nothing is written.
    Blank,
    /// It stands under this name.
    Begun(RolloutId),
    /// It has ended, or the history has let it go.
    Over,
}

impl Recording {
    /// A record of a rollout of `group`, which keeps so many of the likeliest tokens with each.
    pub(super) fn new(group: Group, rows: usize) -> Self {
        Self { group, rows, state: State::Blank, fresh: Vec::new(), written: 0 }
    }

    /// Takes down a committed token, with the likeliest tokens at its position.
    ///
    /// These must be the same whichever token came of the position. So they are not always those of `scored`: a token
    /// that was drawn from the tail of a row is kept with that row.
    pub(super) fn push(&mut self, scored: &Scored, top: &[Entry]) {
        if self.state != State::Over {
            let top = top[..self.rows.min(top.len())].to_vec();
            self.fresh.push(Scored { token: scored.token, logprob: scored.logprob, rank: scored.rank, top });
        }
    }

    /// Writes what is new, of which `versions` tells under which version each token was scored.
    pub(super) fn write(&mut self, versions: &Versions) {
        let history = &self.group.past.history;
        let key = &self.group.key;
        while let Some(version) = versions.at(self.written).filter(|_| !self.fresh.is_empty()) {
            let end = versions.next_after(self.written).map_or(self.fresh.len(), |next| next - self.written);
            let end = end.min(self.fresh.len());
            let id = match self.state {
                State::Blank => history.begin(key, version, self.group.sampling),
                State::Begun(id) => id,
                State::Over => return,
            };
            self.state = State::Begun(id);
            if !history.extend(key, id, version, &self.fresh[..end]) {
                self.group.past.metrics.forgotten.inc();
                self.state = State::Over;
                self.fresh = Vec::new();
                return;
            }
            self.fresh.drain(..end);
            self.written += end;
        }
    }

    /// Writes how it ended.
    pub(super) fn finish(&mut self, reason: FinishReason) {
        let finish = match reason {
            FinishReason::Stop => Finish::Stop,
            FinishReason::Length => Finish::Length,
            FinishReason::Abort => Finish::Abort,
        };
        if let State::Begun(id) = std::mem::replace(&mut self.state, State::Over)
            && !self.group.past.history.finish(&self.group.key, id, finish)
        {
            self.group.past.metrics.forgotten.inc();
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish(FinishReason::Abort);
    }
}
