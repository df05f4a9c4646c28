//! Drafts from what other rollouts of the prompt said after the same tokens: siblings while they run, earlier epochs, the
//! rollout itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DraftRequest, Drafter, ProposalFuture};
use crate::history::suffix::Stream;
use crate::history::{Indexes, PromptIndex, PromptKey};
use crate::speculation::{Draft, Proposal, TokenId};

/// Drafting stops before the token with which it is less likely than this that all are accepted. What pays is the stop
/// rule's to say, which knows how these estimates turn out; this keeps the lists short.
const LEAST: f32 = 0.02;

/// One rollout's view of its prompt's [`PromptIndex`], to which it gives its own tokens with every call.
#[derive(Debug)]
pub struct SuffixDrafter {
    indexes: Arc<Indexes>,
    key: PromptKey,
    index: Arc<Mutex<PromptIndex>>,
    /// This rollout's text in the index.
    stream: Option<Stream>,
    /// How many tokens of the context are in the index.
    indexed: usize,
}

impl SuffixDrafter {
    /// A drafter for a rollout of the prompt of `key` that begins.
    #[must_use]
    pub fn new(indexes: Arc<Indexes>, key: PromptKey) -> Self {
        let index = indexes.open(&key);
        Self { indexed: key.prompt().len(), indexes, key, index, stream: None }
    }

    /// Gives the index what is new in `context`.
    fn index(&mut self, context: &[TokenId]) -> MutexGuard<'_, PromptIndex> {
        let Self { indexes, key, index, stream, indexed } = self;
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let PromptIndex { suffixes, prompt, .. } = &mut *index;
        let recent = stream.as_ref().unwrap_or(&*prompt).recent();
        let goes_on = context.get(..*indexed).is_some_and(|known| known.ends_with(recent));
        let from = if goes_on { *indexed } else { key.prompt().len().min(context.len()) };
        if !goes_on {
            *stream = None;
        }
        let new = &context[from..];
        if !new.is_empty() {
            let bytes = suffixes.bytes();
            suffixes.extend(stream.get_or_insert_with(|| prompt.branch()), new);
            if suffixes.bytes() != bytes {
                indexes.weigh(key, suffixes.bytes());
            }
        }
        *indexed = context.len();
        index
    }

    fn proposal(&mut self, request: &DraftRequest<'_>) -> Proposal {
        let mut index = self.index(request.context);
        let proposed = index.suffixes.propose(request.context, request.length, LEAST);
        let drafts = proposed.iter().map(|(token, estimate)| Draft::certain(*token).with_confidence(*estimate));
        Proposal { drafts: request.take(drafts) }
    }
}

impl Drafter for SuffixDrafter {
    fn name(&self) -> &'static str {
        "suffix"
    }

    fn is_free(&self) -> bool {
        true
    }

    fn prepare(&mut self, context: &[TokenId]) {
        drop(self.index(context));
    }

    fn propose<'a>(&'a mut self, request: DraftRequest<'a>) -> ProposalFuture<'a> {
        Box::pin(std::future::ready(Ok(self.proposal(&request))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::history::Tenant;
    use crate::speculation::StopRule;

    const PROMPT: [TokenId; 3] = [1, 2, 3];

    fn drafter(indexes: &Arc<Indexes>, tenant: &str) -> SuffixDrafter {
        SuffixDrafter::new(Arc::clone(indexes), PromptKey::new(Tenant::new(&[Some(tenant)]), "m", &PROMPT))
    }

    fn context(output: &[TokenId]) -> Vec<TokenId> {
        [&PROMPT, output].concat()
    }

    fn proposed(drafter: &mut SuffixDrafter, request: DraftRequest<'_>) -> Vec<TokenId> {
        let proposal = drafter.propose(request).now_or_never().unwrap().unwrap();
        assert!(proposal.is_certain());
        assert!(proposal.drafts.iter().all(|draft| draft.confidence.is_some_and(|c| c > 0.0 && c < 1.0)));
        proposal.tokens().collect()
    }

    #[test]
    fn siblings_see_each_others_tokens_and_other_tenants_do_not() {
        let indexes = Arc::new(Indexes::new(1 << 20, 4096));
        let [mut one, mut two] = [(); 2].map(|()| drafter(&indexes, "a"));
        let mut stranger = drafter(&indexes, "b");
        one.prepare(&context(&[10, 11, 12]));
        assert_eq!(proposed(&mut two, DraftRequest::new(&PROMPT, 8)), [10, 11, 12], "after the prompt");
        one.prepare(&context(&[10, 11, 12, 13, 14]));
        assert_eq!(proposed(&mut two, DraftRequest::new(&context(&[20, 11, 12]), 8)), [13, 14]);
        assert_eq!(proposed(&mut stranger, DraftRequest::new(&PROMPT, 8)), [0; 0]);
        assert_eq!(indexes.usage().0, 2);
        assert!(indexes.usage().1 > 0);
    }

    #[test]
    fn a_context_that_was_cut_is_indexed_as_if_it_were_new() {
        let indexes = Arc::new(Indexes::new(1 << 20, 4096));
        let [mut one, mut two] = [(); 2].map(|()| drafter(&indexes, "a"));
        one.prepare(&context(&[10, 11, 12, 13]));
        one.prepare(&context(&[10, 11, 30, 31, 32]));
        assert_eq!(proposed(&mut two, DraftRequest::new(&context(&[10, 11, 30]), 8)), [31, 32]);
        one.prepare(&PROMPT[..2]);
        one.prepare(&context(&[40, 41, 42]));
        assert_eq!(proposed(&mut two, DraftRequest::new(&context(&[9, 40, 41]), 8)), [42]);
    }

    #[test]
    fn it_stops_where_it_is_told_to() {
        let indexes = Arc::new(Indexes::new(1 << 20, 4096));
        let [mut one, mut two] = [(); 2].map(|()| drafter(&indexes, "a"));
        one.prepare(&context(&(10..40).collect::<Vec<_>>()));
        let request = DraftRequest::new(&PROMPT, 4);
        assert_eq!(proposed(&mut two, request), [10, 11, 12, 13]);
        assert_eq!(proposed(&mut two, DraftRequest { ends: &[11], ..request }), [10, 11]);
        let mut stop = StopRule { least: 0.3, ..StopRule::never() };
        stop.acceptance.fill(0.5);
        assert_eq!(proposed(&mut two, DraftRequest { stop, ..request }), [10, 11]);
    }
}
