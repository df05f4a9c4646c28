//! Drafts from an old rollout of the same prompt, proposed as a whole.

use std::sync::Arc;

use super::{DraftRequest, Drafter, ProposalFuture};
use crate::history::{History, Lease, PromptKey};
use crate::speculation::{Draft, Proposal, TokenId};

/// After so many proposals in a row of which nothing was kept, a rollout that has parted from its old one does without it.
/// Whether a few misses are worth it is for the controller to say, who knows how often texts come together again.
const MOST_MISSES: usize = 8;

/// One rollout's old rollout.
///
/// Where this rollout parts from it, it goes on beside it: the old token at a place was drawn from the row that is kept of
/// that place, whatever became of the tokens before it here, so it is still a draft with a known distribution. It is a good
/// one where the two texts say the same again after a few other tokens.
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
    /// There is none, or it is of no more use.
    Over,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// The version under which it may serve.
    version: Arc<str>,
    /// How many of its tokens this rollout had when they were last seen to agree.
    agreed: usize,
    /// Whether this rollout has parted from it since.
    has_parted: bool,
    /// Where the last proposal began and how long it was, until it is seen what became of it.
    asked: Option<(usize, usize)>,
    /// Whether any proposal went out.
    has_begun: bool,
    /// Proposals in a row, made after they had parted, of which nothing was kept.
    misses: usize,
}

impl Held {
    fn new(lease: Lease, version: &Arc<str>) -> Self {
        let version = Arc::clone(version);
        Self { lease, version, agreed: 0, has_parted: false, asked: None, has_begun: false, misses: 0 }
    }

    /// Whether there is a draft after `output`.
    fn goes_on(&mut self, output: &[TokenId]) -> bool {
        if !self.settle(output) {
            return false;
        }
        let old = self.lease.rollout.tokens();
        if output.len() >= old.len() || output.len() < self.agreed {
            return false;
        }
        let agrees = !self.has_parted && output[self.agreed..] == old[self.agreed..output.len()];
        if agrees {
            self.agreed = output.len();
            return true;
        }
        self.has_parted = true;
        // What is no more than a point mass, the suffix index knows better where to put.
        self.is_drawn() && self.misses < MOST_MISSES
    }

    /// Whether what its tokens were drawn from is known.
    fn is_drawn(&self) -> bool {
        self.lease.is_unselected && self.lease.rollout.sampling().is_some()
    }

    /// Looks at what became of the last proposal; false if it was broken off. Then the first of its drafts that is not here
    /// may have been rejected already, and must not be judged again.
    fn settle(&mut self, output: &[TokenId]) -> bool {
        let Some((from, count)) = self.asked.take() else { return true };
        let Some(new) = output.get(from..) else { return false };
        let replaced = new.last().is_some_and(|last| self.lease.rollout.tokens().get(output.len() - 1) != Some(last));
        if self.has_parted {
            self.misses = if new.len() == 1 { self.misses + 1 } else { 0 };
        }
        // The token that takes a rejected draft's place is another.
        new.len() > count || replaced
    }
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
                let is_untouched = !held.has_begun && !held.has_parted && held.agreed == 0;
                self.state = if is_untouched { State::New } else { State::Over };
            }
            State::Held(_) | State::Over => return None,
        }
        if !matches!(self.state, State::New) {
            return None;
        }
        self.state = match self.history.take(&self.key, version) {
            Some(lease) => State::Held(Held::new(lease, version)),
            None => State::Over,
        };
        match &self.state {
            State::Held(held) => Some(&held.lease),
            _ => None,
        }
    }

    /// Whether there is a draft after `context`. That there is says nothing of what it is.
    ///
    /// A token that came another way ends nothing, be it the old one's or another: the old tokens after it were drawn
    /// without regard to it. What was proposed is asked for after each step, for only then can be seen what became of it.
    pub fn has_more(&mut self, context: &[u32]) -> bool {
        let State::Held(held) = &mut self.state else { return false };
        let output = context.get(self.key.prompt().len()..).unwrap_or_default();
        let goes_on = held.goes_on(output);
        if !goes_on {
            self.state = State::Over;
        }
        goes_on
    }

    /// Whether this rollout has parted from the old one that it still holds.
    #[must_use]
    pub fn has_parted(&self) -> bool {
        matches!(&self.state, State::Held(held) if held.has_parted)
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
        let from = request.context.len() - self.key.prompt().len();
        let State::Held(held) = &mut self.state else { return Proposal::default() };
        let Lease { rollout, is_unselected, .. } = &held.lease;
        let drafts = (from..).take(request.length).map_while(|at| rollout.draft(at));
        let drafts = drafts.map(|draft| if *is_unselected { draft } else { Draft::certain(draft.token) });
        let drafts: Vec<Draft> = drafts.collect();
        (held.asked, held.has_begun) = (Some((from, drafts.len())), true);
        Proposal { drafts }
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

    /// A rollout of version 1 that is over and has this text.
    fn one_of(text: &[TokenId]) -> Arc<Memory> {
        let memory = Memory::new(1 << 20);
        let id = memory.begin(&key(), &version("1"), Sampling::new(1.0, None, 1.0, 0.0));
        let text: Vec<Scored> = text.iter().map(|token| scored(*token)).collect();
        memory.extend(&key(), id, &version("1"), &text);
        memory.finish(&key(), id, Finish::Stop);
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
    fn an_old_rollout_is_proposed_in_pieces() {
        let history = history(1, 0);
        let mut drafter = drafter(&history);
        assert!(!drafter.has_more(&PROMPT), "nothing was taken yet");
        assert!(drafter.under(&version("2")).is_some() && drafter.under(&version("2")).is_none(), "once");
        assert!(drafter.has_more(&PROMPT));
        assert_eq!(proposed(&mut drafter, &[], 2), [10, 11]);
        assert_eq!(proposed(&mut drafter, &[10, 11, 12], 8), [13, 14, 15], "after another token of the old one's");
        assert!(!drafter.has_parted());
    }

    #[test]
    fn a_rollout_that_parts_goes_on_beside_the_old_one() {
        let mut drafter = drafter(&history(1, 0));
        drafter.under(&version("2"));
        assert_eq!(proposed(&mut drafter, &[], 4), [10, 11, 12, 13]);
        assert_eq!(proposed(&mut drafter, &[10, 77], 2), [12, 13], "the second was rejected");
        assert!(drafter.has_parted());
        assert_eq!(proposed(&mut drafter, &[10, 77, 12, 13, 78], 8), [15], "and the bonus is another");
        let mut early = super::tests::drafter(&history(1, 0));
        early.under(&version("2"));
        assert_eq!(proposed(&mut early, &[70, 71], 2), [12, 13], "whatever came before");
    }

    #[test]
    fn drafts_of_which_nothing_is_kept_end_it() {
        let old: Vec<TokenId> = (10..40).collect();
        let mut drafter = drafter(&one_of(&old));
        drafter.under(&version("2"));
        let mut output = Vec::new();
        // The first rejection is where they part.
        for at in 0..=MOST_MISSES {
            assert_eq!(proposed(&mut drafter, &output, 4), old[at..at + 4]);
            output.push(70);
        }
        assert!(!drafter.has_more(&context(&output)));
    }

    #[test]
    fn an_old_rollout_without_rows_ends_where_they_part() {
        let mut drafter = drafter(&history(1, 1));
        drafter.under(&version("2"));
        assert_eq!(proposed(&mut drafter, &[], 4), [10, 11, 12, 13]);
        assert!(!drafter.has_more(&context(&[10, 77])));
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
        for kept in [&[10][..], &[10, 11], &[10, 11, 12]] {
            let mut drafter = drafter(&history(1, 0));
            drafter.under(&version("2"));
            assert_eq!(proposed(&mut drafter, &[10], 2), [11, 12]);
            assert_eq!(proposed(&mut drafter, kept, 2), [0; 0], "the next may have been rejected already");
            assert!(!drafter.has_more(&context(kept)));
        }
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
