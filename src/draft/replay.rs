//! Drafts from an old rollout of the same prompt, proposed as a whole.

use std::sync::Arc;

use super::{DraftRequest, Drafter, ProposalFuture};
use crate::history::{History, Lease, PromptKey};
use crate::speculation::{Draft, Proposal};

/// One rollout's old rollout.
///
/// Its tokens were drawn long before anybody asks for them. They are distributed as their rows say only for one who knows
/// nothing else of them, so until it is decided to have them judged nobody may look at them: neither at their ids, nor at
/// how many are left, nor at proposals of those who have seen them. And none may be passed over for what it is.
#[derive(Debug)]
pub struct ReplayDrafter {
    history: Arc<dyn History>,
    key: PromptKey,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked of the history yet.
    New,
    /// The old rollout serves this one.
    Held(Held),
    /// There is none, or it has parted from this one.
    Over,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// The version under which it may serve.
    version: Arc<str>,
    /// How many of its tokens this rollout has.
    agreed: usize,
    /// Up to which a proposal went out last.
    asked: Option<usize>,
}

impl ReplayDrafter {
    /// A drafter for a new rollout of the prompt of `key`.
    #[must_use]
    pub fn new(history: Arc<dyn History>, key: PromptKey) -> Self {
        Self { history, key, state: State::New }
    }

    /// Gets an old rollout for a new one under `version`, at the first call; gives it back if it is got. One that was got
    /// under another version serves no longer, for under this one it may serve another.
    pub fn under(&mut self, version: &Arc<str>) -> Option<&Lease> {
        match &self.state {
            State::New => {}
            State::Held(held) if held.version != *version => {
                // Nothing came of it so far: another may do.
                self.state = if held.asked.is_none() && held.agreed == 0 { State::New } else { State::Over };
            }
            State::Held(_) | State::Over => return None,
        }
        if !matches!(self.state, State::New) {
            return None;
        }
        self.state = match self.history.take(&self.key, version) {
            Some(lease) => State::Held(Held { lease, version: Arc::clone(version), agreed: 0, asked: None }),
            None => State::Over,
        };
        match &self.state {
            State::Held(held) => Some(&held.lease),
            _ => None,
        }
    }

    /// Whether there is a draft after `context`, by which this rollout must be the old one so far. That there is says
    /// nothing of what it is.
    ///
    /// A token that came another way and is the old one's all the same ends nothing: the old tokens after it were drawn
    /// without regard to how it came.
    pub fn has_more(&mut self, context: &[u32]) -> bool {
        let State::Held(held) = &mut self.state else { return false };
        let old = held.lease.rollout.tokens();
        let output = context.get(self.key.prompt().len()..).unwrap_or_default();
        let agrees = output.len() < old.len()
            && output.get(held.agreed..) == Some(&old[held.agreed..output.len().max(held.agreed)]);
        if agrees {
            held.agreed = output.len();
        } else {
            self.state = State::Over;
        }
        agrees
    }

    /// The version under which alone what it proposes may be judged.
    #[must_use]
    pub fn version(&self) -> Option<&Arc<str>> {
        match &self.state {
            State::Held(held) => Some(&held.version),
            _ => None,
        }
    }

    fn proposal(&mut self, request: &DraftRequest<'_>) -> Proposal {
        if !self.has_more(request.context) {
            return Proposal::default();
        }
        let State::Held(held) = &mut self.state else { return Proposal::default() };
        if held.asked == Some(held.agreed) {
            // The last proposal was broken off, and its first draft may have been judged already.
            self.state = State::Over;
            return Proposal::default();
        }
        held.asked = Some(held.agreed);
        let Lease { rollout, is_unselected, .. } = &held.lease;
        let drafts = (held.agreed..).take(request.length).map_while(|at| rollout.draft(at));
        let drafts = drafts.map(|draft| if *is_unselected { draft } else { Draft::certain(draft.token) });
        Proposal { drafts: drafts.collect() }
    }
}

impl Drafter for ReplayDrafter {
    fn name(&self) -> &'static str {
        "replay"
    }

    /// Neither the stop rule nor an end among the drafts makes it shorter.
    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(std::future::ready(Ok(self.proposal(&request))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::history::{Finish, Memory, Tenant};
    use crate::speculation::{DraftDistribution, Entry, Sampling, Scored, TokenId};

    const PROMPT: [TokenId; 2] = [1, 2];
    const OLD: [TokenId; 6] = [10, 11, 12, 13, 14, 15];

    fn key() -> PromptKey {
        PromptKey::new(Tenant::new(&[]), "m", &PROMPT)
    }

    fn version(name: &str) -> Arc<str> {
        name.into()
    }

    fn scored(token: TokenId) -> Scored {
        let entry = |token, p: f64| Entry { token, logprob: p.ln() };
        Scored { token, logprob: -0.1, rank: None, top: vec![entry(10, 0.5), entry(11, 0.3), entry(99, 0.01)] }
    }

    /// A history of rollouts of version 1 of which the last still runs, if so many are over.
    fn history(over: usize, running: usize) -> Arc<Memory> {
        let memory = Memory::new(1 << 20);
        for index in 0..over + running {
            let id = memory.begin(&key(), &version("1"), Sampling::new(1.0, None, 1.0, 0.0));
            memory.extend(&key(), id, &version("1"), &OLD.map(scored));
            if index < over {
                memory.finish(&key(), id, Finish::Stop);
            }
        }
        Arc::new(memory)
    }

    fn drafter(history: &Arc<Memory>) -> ReplayDrafter {
        ReplayDrafter::new(Arc::clone(history) as Arc<dyn History>, key())
    }

    fn context(output: &[TokenId]) -> Vec<TokenId> {
        [&PROMPT, output].concat()
    }

    fn proposed(drafter: &mut ReplayDrafter, output: &[TokenId], length: usize) -> Vec<TokenId> {
        let context = context(output);
        let proposal = drafter.propose(DraftRequest::new(&context, length)).now_or_never().unwrap().unwrap();
        proposal.tokens().collect()
    }

    #[test]
    fn an_old_rollout_is_proposed_in_pieces_until_this_one_parts_from_it() {
        let history = history(1, 0);
        let mut drafter = drafter(&history);
        assert!(!drafter.has_more(&PROMPT), "nothing was taken yet");
        assert!(drafter.under(&version("2")).is_some() && drafter.under(&version("2")).is_none(), "once");
        assert!(drafter.has_more(&PROMPT));
        assert_eq!(proposed(&mut drafter, &[], 2), [10, 11]);
        assert_eq!(proposed(&mut drafter, &[10, 11, 12], 8), [13, 14, 15], "after another token of the old one's");
        assert!(!drafter.has_more(&context(&[10, 11, 12, 13, 77])));
        assert_eq!(proposed(&mut drafter, &[10, 11, 12, 13], 8), [0; 0], "it has parted for good");
    }

    #[test]
    fn at_the_old_end_it_is_over() {
        let mut drafter = drafter(&history(1, 0));
        drafter.under(&version("2"));
        assert!(drafter.has_more(&context(&OLD[..5])) && !drafter.has_more(&context(&OLD)));
    }

    #[test]
    fn drafts_are_drawn_where_the_old_rollout_was_not_selected_and_certain_otherwise() {
        for (running, is_drawn) in [(0, true), (1, false)] {
            let mut drafter = drafter(&history(1, running));
            assert_eq!(drafter.under(&version("2")).unwrap().is_unselected, is_drawn);
            let proposal = drafter.propose(DraftRequest::new(&PROMPT, 3)).now_or_never().unwrap().unwrap();
            assert_eq!(proposal.tokens().collect::<Vec<_>>(), OLD[..3]);
            assert_eq!(proposal.is_certain(), !is_drawn);
            let is_partial = |draft: &Draft| matches!(draft.q, DraftDistribution::Partial(_));
            assert!(proposal.drafts.iter().all(|draft| is_partial(draft) == is_drawn));
            assert!(proposal.drafts.iter().all(|draft| draft.confidence.is_none()));
        }
    }

    #[test]
    fn it_serves_under_one_version_alone() {
        let history = history(2, 0);
        let (mut early, mut late) = (drafter(&history), drafter(&history));
        assert!(early.under(&version("2")).is_some());
        assert!(early.under(&version("3")).is_some(), "nothing came of the first");
        assert_eq!(early.version(), Some(&version("3")));
        assert!(late.under(&version("3")).is_none(), "both have served");
        assert_eq!(proposed(&mut early, &[], 2), [10, 11]);
        assert!(early.under(&version("4")).is_none() && !early.has_more(&context(&OLD[..2])));
    }

    #[test]
    fn a_proposal_that_was_broken_off_is_not_made_again() {
        let mut drafter = drafter(&history(1, 0));
        drafter.under(&version("2"));
        assert_eq!(proposed(&mut drafter, &[10], 2), [11, 12]);
        assert_eq!(proposed(&mut drafter, &[10], 2), [0; 0]);
        assert!(!drafter.has_more(&context(&[10])));
    }

    #[test]
    fn neither_stop_rule_nor_ends_choose_among_the_drafts() {
        let mut drafter = drafter(&history(1, 0));
        drafter.under(&version("2"));
        let stop = crate::speculation::StopRule { acceptance: [0.0; crate::draft::CONFIDENCE_BINS], least: 1.0 };
        let request = DraftRequest { stop, ends: &[11], ..DraftRequest::new(&PROMPT, 4) };
        let proposal = drafter.propose(request).now_or_never().unwrap().unwrap();
        assert_eq!(proposal.tokens().collect::<Vec<_>>(), OLD[..4]);
    }
}
