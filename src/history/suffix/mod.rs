//! What followed the longest suffixes of a context in all texts of a prompt: those of earlier epochs, of siblings that still
//! run, and of the rollout itself.
//!
//! Suffix decoding (Oliaro et al., arXiv 2411.04975) keeps a suffix tree with counts, which takes work in proportion to its
//! depth for every token and hundreds of bytes. Here a token costs one hash of what precedes it at a few lengths and a link
//! in a chain per length, as LZ77 compressors index their window. A lookup collects the latest places where the context's
//! suffix stood before, which is what a walk down the tree would count, and follows them as long as they agree.

mod chains;
mod pages;
mod vote;

pub use self::chains::Stream;
use self::chains::{Chains, LENGTHS};
use self::pages::{Pages, Position};
use self::vote::{Place, Votes};
use crate::speculation::TokenId;

/// Places that a lookup visits at most.
const VISITED: usize = 32;

/// Tokens of the context that are compared at a place.
const MEASURED: usize = 32;

/// An index of texts that grow at the same time. The oldest pages of text leave when it is full.
#[derive(Debug)]
pub struct SuffixIndex {
    pages: Pages,
    chains: Chains,
    /// Memory for one proposal.
    places: Vec<Place>,
    votes: Votes,
    proposal: Vec<(TokenId, f32)>,
}

impl SuffixIndex {
    /// An empty index of `most_tokens` at most, in whole pages, of which at least one for each text that grows should fit.
    #[must_use]
    pub fn new(most_tokens: usize) -> Self {
        Self {
            pages: Pages::new(most_tokens),
            chains: Chains::default(),
            places: Vec::with_capacity(VISITED),
            votes: Votes::default(),
            proposal: Vec::new(),
        }
    }

    /// Appends `tokens` to the text of `stream`.
    pub fn extend(&mut self, stream: &mut Stream, tokens: &[TokenId]) {
        for token in tokens {
            let position = stream.push(&mut self.pages, *token);
            if self.chains.is_full(self.pages.len()) {
                self.chains.rebuild(&mut self.pages);
            } else {
                self.chains.link(&mut self.pages, position, stream);
            }
            stream.remember(*token);
        }
    }

    /// Up to `length` tokens that may come after `context`, each with an estimate of how likely it is accepted given that
    /// those before it are. It stops before the token with which the product of the estimates falls below `least`.
    pub fn propose(&mut self, context: &[TokenId], length: usize, least: f32) -> &[(TokenId, f32)] {
        self.proposal.clear();
        self.find(context);
        let mut survival = 1.0;
        while self.proposal.len() < length
            && let Some((token, estimate)) = self.votes.best(&self.places)
        {
            survival *= estimate;
            if survival < least {
                break;
            }
            self.proposal.push((token, estimate));
            let pages = &self.pages;
            self.places.retain_mut(|place| place.token == token && place.advance(pages));
        }
        &self.proposal
    }

    /// Collects the latest places that follow a suffix of `context`, those of its longest suffixes first.
    fn find(&mut self, context: &[TokenId]) {
        let Self { pages, chains, places, .. } = self;
        places.clear();
        let recent = &context[context.len().saturating_sub(MEASURED)..];
        let mut visits = 0;
        // What agrees that far was met in the chain before.
        let mut known = usize::MAX;
        for (level, shortest) in LENGTHS.iter().enumerate().rev() {
            let mut next = chains.head(level, recent);
            while let Some(position) = next.filter(|position| visits < VISITED && pages.is_live(*position)) {
                visits += 1;
                let agreeing = pages.agreement(position, recent);
                if (*shortest..known).contains(&agreeing) {
                    places.push(Place { position, matched: agreeing as u32, token: pages.token(position) });
                }
                next = pages.link(level, position);
            }
            known = *shortest;
        }
    }

    /// Tokens indexed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether nothing is indexed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.pages.bytes() + self.chains.bytes()
    }

    /// The most bytes that an index of `most_tokens` ever holds, but for the memory of one proposal.
    #[must_use]
    pub fn most_bytes(most_tokens: usize) -> usize {
        size_of::<Self>() + Pages::most_bytes(most_tokens) + Chains::most_bytes(most_tokens)
    }
}
