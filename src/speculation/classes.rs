//! The class rule: judging a draft whose distribution q is known on some ids only.
//!
//! An old rollout was drawn from a distribution of which its row told the N likeliest ids. Let K be the ids that both the old
//! row and the new one list, whichever id was drafted. Each id of K is a class of its own, and all others together are the
//! class O, so that p and q are known of every class, as q(O) = 1 − Σ_K q. The draft's class was drawn from q over classes:
//! the token rule (Leviathan et al., arXiv 2211.17192) on classes gives a class distributed as p says. An id of K is then
//! the token; for O the token is drawn from p restricted to the ids outside K. The token is distributed as p because
//! p(y) = p(O) · p(y | O).
//!
//! Where the server scores ids that it is given, the row tells of all that the old one lists, and K is those: likely or not,
//! and still whichever id was drafted.
//!
//! That draw has two stages, since the new row usually knows some ids outside K, the draft among them: one of those in
//! proportion to its p, or the tail, from which the server draws. Which ids are known may depend on the draft here; the
//! outcome is distributed as p restricted to O with any of them, and a draft that comes out again is kept.

use super::target::above_border;
use super::{AcceptanceRule, Known, Residual, Row, Sampling, TokenId};

/// Which classes there are at a position, and what p and q say of each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Classes {
    /// K with p and q, q > 0.
    shared: Vec<(TokenId, f64, f64)>,
    /// p(O).
    target: f64,
    /// q(O).
    draft: f64,
    /// p outside K, unnormalised.
    outside: Residual,
}

impl Classes {
    /// The classes of a draft of whose distribution `listed` is known, where the target of a client that samples like
    /// this is `known` from `row`.
    #[must_use]
    pub fn new(listed: &[(TokenId, f64)], row: &Row, sampling: &Sampling, known: &Known<'_>) -> Self {
        let mut classes = Self::default();
        classes.set(listed, row, sampling, known);
        classes
    }

    /// Becomes the classes of that position, in the memory that it has.
    pub(super) fn set(&mut self, listed: &[(TokenId, f64)], row: &Row, sampling: &Sampling, known: &Known<'_>) {
        // The draft has its own place in a row. Where it ties with the last of the top it may even take that one's, so
        // the last and its equals are not in K: which ids are must not depend on the draft. Where sampling is truncated, a
        // target that is known is known of every id, and so it is where all of `listed` was asked for.
        let top = above_border(row.top());
        let is_known = !sampling.is_raw() || row.tells_all_listed();
        let is_shared = |id| is_known || top.iter().any(|entry| entry.token == id);
        let target_of = |id| known.probability_of(id).filter(|_| is_shared(id));
        self.shared.clear();
        let positive = listed.iter().filter(|(_, q)| *q > 0.0);
        self.shared.extend(positive.filter_map(|(id, q)| target_of(*id).map(|p| (*id, p, *q))));
        self.target = (1.0 - self.shared.iter().map(|(_, p, _)| p).sum::<f64>()).max(0.0);
        self.draft = (1.0 - self.shared.iter().map(|(_, _, q)| q).sum::<f64>()).max(0.0);
        self.outside.tail = known.tail();
        self.outside.listed.clear();
        let shared = &self.shared;
        self.outside.listed.extend(known.listed().filter(|(id, _)| shared.iter().all(|(other, _, _)| other != id)));
    }

    /// The class of `token`: itself, or `None` for O.
    #[must_use]
    pub fn class_of(&self, token: TokenId) -> Option<TokenId> {
        self.shared.iter().find(|(id, _, _)| *id == token).map(|(id, _, _)| *id)
    }

    /// The probability of keeping the class of the draft `token`, or `None` if q says that it cannot have been drawn.
    #[must_use]
    pub fn acceptance(&self, token: TokenId, rule: &dyn AcceptanceRule) -> Option<f64> {
        let shared = self.shared.iter().find(|(id, _, _)| *id == token);
        let (p, q) = shared.map_or((self.target, self.draft), |(_, p, q)| (*p, *q));
        (q > 0.0).then(|| rule.acceptance(p, q))
    }

    /// The weights of the classes after a rejection: those of K are listed, and O is the tail.
    #[must_use]
    pub fn residual(&self, rule: &dyn AcceptanceRule) -> Residual {
        let mut residual = Residual::default();
        self.set_residual(&mut residual, rule);
        residual
    }

    /// The same, in the memory of `residual`.
    pub(super) fn set_residual(&self, residual: &mut Residual, rule: &dyn AcceptanceRule) {
        residual.listed.clear();
        residual.listed.extend(self.shared.iter().map(|(id, p, q)| (*id, rule.residual(*p, *q))));
        residual.tail = rule.residual(self.target, self.draft);
    }

    /// The weights by which a token of O is drawn: of the ids outside K whose p is known, and of the tail.
    #[must_use]
    pub fn outside(&self) -> &Residual {
        &self.outside
    }
}
