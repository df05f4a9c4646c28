//! What a sequence asks of the model thread, and how far it has come with it.

use tokio::sync::oneshot;

use super::backend::Then;
use super::error::ModelError;
use super::sample::{DraftSampling, DraftedToken};
use crate::speculation::TokenId;

/// Where an answer goes. Closed once its caller has gone.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ModelError>>;

/// What a sequence asks for, after its context.
pub(super) enum Job {
    /// Run the context, all but its last token, through the model: the first draft needs the last one's logits.
    Prepare,
    /// Draft for a later [`Job::Draft`] that may begin like this. Nobody waits for it.
    Ahead {
        sampling: DraftSampling,
    },
    Draft {
        sampling: DraftSampling,
        reply: Reply<Vec<DraftedToken>>,
    },
    /// The logits after the context.
    Logits {
        reply: Reply<Vec<f32>>,
    },
}

/// A job under way.
pub(super) struct Work {
    job: Job,
    drafted: Vec<DraftedToken>,
    /// The stop rule's forecast that all of `drafted` are accepted.
    survival: f32,
    /// Whether nothing is left to do: only work ahead stays after its end.
    over: bool,
    /// Jobs are served in order of arrival.
    pub(super) arrival: u64,
}

impl Work {
    pub(super) fn new(job: Job, arrival: u64) -> Self {
        Self { job, drafted: Vec::new(), survival: 1.0, over: false, arrival }
    }

    /// Whether nobody waits for it.
    pub(super) fn is_background(&self) -> bool {
        matches!(self.job, Job::Prepare | Job::Ahead { .. })
    }

    /// Whether it waits for nothing but a [`Job::Draft`] that takes its drafts over.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_prepare(&self) -> bool {
        matches!(self.job, Job::Prepare)
    }

    /// What is wanted after context and drafts.
    pub(super) fn then(&self) -> Then<'_> {
        match &self.job {
            Job::Ahead { sampling } | Job::Draft { sampling, .. } if !self.over => {
                Then::Draft { sampling, at_most: sampling.length - self.drafted.len() }
            }
            Job::Logits { .. } => Then::Logits,
            _ => Then::Nothing,
        }
    }

    pub(super) fn is_ahead(&self) -> bool {
        matches!(self.job, Job::Ahead { .. })
    }

    /// Whether its caller is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        match &self.job {
            Job::Prepare | Job::Ahead { .. } => false,
            Job::Draft { reply, .. } => reply.is_closed(),
            Job::Logits { reply } => reply.is_closed(),
        }
    }

    /// Drafts that it may come to have.
    pub(super) fn most_drafts(&self) -> usize {
        match &self.job {
            Job::Ahead { sampling } | Job::Draft { sampling, .. } => sampling.length,
            Job::Prepare | Job::Logits { .. } => 0,
        }
    }

    pub(super) fn drafted(&self) -> impl ExactSizeIterator<Item = TokenId> + '_ {
        self.drafted.iter().map(|draft| draft.token)
    }

    /// Takes the next draft and says whether it was the last one.
    pub(super) fn push(&mut self, draft: DraftedToken) -> bool {
        let (Job::Ahead { sampling } | Job::Draft { sampling, .. }) = &self.job else { return true };
        // The first token ahead is a guess at the server's own, whose fate is known before any of this is proposed.
        let counts = !(self.drafted.is_empty() && self.is_ahead());
        let goes_on = !counts || sampling.stop.goes_on(&mut self.survival, Some(draft.confidence));
        let ends = sampling.ends.contains(&draft.token);
        self.drafted.push(draft);
        self.over = !goes_on || ends || self.drafted.len() >= sampling.length;
        self.over
    }

    /// The drafts that this work ahead has for `job`, which comes with `appended` after the context of this one.
    pub(super) fn hand_over(self, job: &Job, appended: &[TokenId]) -> Vec<DraftedToken> {
        let (Job::Ahead { sampling: ahead }, Job::Draft { sampling, .. }) = (&self.job, job) else { return Vec::new() };
        let mut drafted = self.drafted;
        let agrees = appended.len() < drafted.len() && appended.iter().zip(&drafted).all(|(a, b)| *a == b.token);
        if !agrees || !ahead.draws_like(sampling) {
            return Vec::new();
        }
        drafted.split_off(appended.len())
    }
}

/// What goes out to the caller of a job that is done: the logits after the context or, for a [`Job::Draft`], what was
/// drafted or went wrong.
pub(super) struct Answer {
    pub(super) work: Work,
    pub(super) logits: Vec<f32>,
    pub(super) failure: Option<ModelError>,
}

impl Answer {
    pub(super) fn drafts(work: Work, failure: Option<ModelError>) -> Self {
        Self { work, logits: Vec::new(), failure }
    }

    /// Sends it. That nobody waits any more is no fault.
    pub(super) fn send(self) {
        match self.work.job {
            Job::Draft { reply, .. } => drop(reply.send(self.failure.map_or(Ok(self.work.drafted), Err))),
            Job::Logits { reply } => drop(reply.send(Ok(self.logits))),
            Job::Prepare | Job::Ahead { .. } => {}
        }
    }
}
