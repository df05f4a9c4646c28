//! What rollouts report of what they did and saw.

use super::acceptance::Judged;
use super::forecast::Company;
use super::tail::Tails;
use crate::verify::Strategy;

/// Something that was measured. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Measurement {
    /// Has whoever takes it in panic.
    #[cfg(test)]
    Panic,
    /// A rollout got tokens from a decode stream.
    Decoded {
        /// Requests that the server worked on meanwhile.
        load: f64,
        /// From one token to the next, the work of verifications in between taken off.
        interval: f64,
        /// How many intervals it is the mean of.
        tokens: f64,
    },
    /// A proposal was verified.
    Verified {
        /// Which way.
        strategy: Strategy,
        /// Who else was there.
        company: Company,
        /// Tokens that the server had to compute.
        new_tokens: f64,
        /// The round's drafting and other work.
        elsewhere: f64,
        /// Until the reply.
        seconds: f64,
    },
    /// A drafter made a proposal.
    Drafted {
        /// Which one.
        drafter: usize,
        /// Rollouts that speculated or drafted meanwhile, for which it may have had to work, too.
        speculating: f64,
        /// Tokens of the context that it read first.
        unread: usize,
        /// How long a proposal.
        tokens: usize,
        /// How long it took.
        seconds: f64,
    },
    /// Drafts were judged.
    Judged {
        /// By whom they were drafted.
        drafter: usize,
        /// The drafts that were reached.
        drafts: Vec<Judged>,
    },
    /// A round is over.
    Round {
        /// By whose drafts it was.
        drafter: usize,
        /// Who else was there.
        company: Company,
        /// Tokens that it brought.
        tokens: usize,
        /// Tokens that were foreseen: in the time that it took, where most speculated and that may be told.
        foreseen: f64,
    },
    /// A round of a rollout that has an old one is over, in a crowd of which most speculated.
    Together {
        /// Requests that the server worked on meanwhile.
        load: f64,
        /// The share of those that began so which decode by now.
        beside: f64,
        /// Tokens that it brought.
        tokens: usize,
        /// How long it took, where that tells of no draft that may still be judged.
        seconds: Option<f64>,
    },
    /// A round took time beside drafting and verification.
    Extra {
        /// Whether under greedy sampling.
        greedy: bool,
        /// How long.
        seconds: f64,
    },
    /// Something is known beforehand of a drafter's drafts, which is believed until they are judged.
    Believed {
        /// Which one.
        drafter: usize,
        /// What.
        belief: Belief,
    },
    /// Rows showed how much probability lies beyond their first entries.
    Tail(Tails),
    /// The server's own gauges were read.
    Server {
        /// Requests that it works on, or that wait there, beside those of this sidecar.
        others: f64,
        /// Tokens in a block of its prefix cache.
        block_size: Option<usize>,
    },
}

/// What is known of drafts before any was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Belief {
    /// So large a share of them is accepted.
    Acceptance(f64),
    /// Once the first of a proposal is kept, the others are like those of this drafter.
    Like(usize),
}
