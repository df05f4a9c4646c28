//! The ids that drafts are drawn from, when the vocabulary is large: most of a small model's weights are in the matrix
//! that gives every id a logit, and few ids ever come up.
//!
//! The list begins with the lowest ids, which byte-pair vocabularies give to what is most frequent, and learns every id
//! that it sees in a context, prompts included; beyond its capacity, what was not seen for long makes room. Drafting
//! stays exact: q is the distribution over the ids that are listed when the token is drawn. An id that is missing is
//! never drafted and has to be sampled by the server once, which is how it gets in.

use super::matrix::Matrix;
use crate::speculation::TokenId;

/// Where an id stands that is not listed.
const NOWHERE: u32 = u32::MAX;

/// Listed ids, with the rows of the output matrix that belong to them.
pub(super) struct Shortlist {
    /// The first are there for good.
    ids: Vec<TokenId>,
    lasting: usize,
    capacity: usize,
    /// Where each id of the vocabulary stands in `ids`.
    places: Vec<u32>,
    /// Whether the id was seen since the hand last passed it, in the order of `ids`.
    seen: Vec<bool>,
    /// Where to look for an id to replace.
    hand: usize,
    /// [ids, hidden].
    head: Matrix,
}

impl Shortlist {
    /// A list of the `lasting` lowest of the ids that `head` has rows for, with room for as many others. None where
    /// that would be all of them.
    pub(super) fn new(head: &Matrix, lasting: usize) -> Option<Self> {
        let capacity = 2 * lasting;
        if lasting == 0 || capacity >= head.rows() {
            return None;
        }
        let ids: Vec<TokenId> = (0..lasting as TokenId).collect();
        let mut places = vec![NOWHERE; head.rows()];
        places[..lasting].copy_from_slice(&ids);
        let first = head.first_rows(lasting);
        Some(Self { ids, lasting, capacity, places, seen: vec![true; lasting], hand: lasting, head: first })
    }

    /// The ids, in the order of the rows of [`Self::head`].
    pub(super) fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// The matrix that turns a hidden state into logits of the listed ids.
    pub(super) fn head(&self) -> &Matrix {
        &self.head
    }

    /// Lists an id that was seen, which is one of `head`, the whole matrix.
    pub(super) fn learn(&mut self, id: TokenId, head: &Matrix) {
        let place = self.places[id as usize];
        if place != NOWHERE {
            self.seen[place as usize] = true;
            return;
        }
        let place = self.vacate();
        self.head.set_row(place, head, id as usize);
        self.places[id as usize] = place as u32;
        if place == self.ids.len() {
            self.ids.push(id);
            self.seen.push(true);
        } else {
            self.ids[place] = id;
            self.seen[place] = true;
        }
    }

    /// A place for a new id: the next while there is room, then that of the first id that was not seen in a whole
    /// round of the hand.
    fn vacate(&mut self) -> usize {
        if self.ids.len() < self.capacity {
            return self.ids.len();
        }
        loop {
            let place = self.hand;
            self.hand = if place + 1 == self.capacity { self.lasting } else { place + 1 };
            if !std::mem::take(&mut self.seen[place]) {
                self.places[self.ids[place] as usize] = NOWHERE;
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Precision;
    use super::*;

    fn head() -> Matrix {
        let values = (0..20 * 32).map(|value| (value / 32) as f32).collect();
        Matrix::new(Precision::F32, 20, 32, values).unwrap()
    }

    /// What the rows say that they are of.
    fn rows(list: &Shortlist) -> Vec<TokenId> {
        let mut row = [0.0; 32];
        let mut id_of = |place| {
            list.head().copy_row(place, &mut row);
            row[0] as TokenId
        };
        (0..list.head().rows()).map(&mut id_of).collect()
    }

    #[test]
    fn what_was_seen_is_listed_and_what_was_not_for_long_makes_room() {
        let (head, mut list) = (head(), Shortlist::new(&head(), 4).unwrap());
        for id in [9, 2, 15, 9, 7, 11] {
            list.learn(id, &head);
        }
        assert_eq!(list.ids(), [0, 1, 2, 3, 9, 15, 7, 11]);
        assert_eq!(rows(&list), list.ids());
        // All were seen when the hand comes by, so the oldest goes; then those that were not seen again.
        list.learn(19, &head);
        list.learn(15, &head);
        list.learn(18, &head);
        assert_eq!(list.ids(), [0, 1, 2, 3, 19, 15, 18, 11]);
        list.learn(9, &head);
        assert_eq!(list.ids(), [0, 1, 2, 3, 19, 15, 18, 9]);
        assert_eq!(rows(&list), list.ids());
    }

    #[test]
    fn a_small_vocabulary_needs_no_list() {
        assert!(Shortlist::new(&head(), 10).is_none());
        assert!(Shortlist::new(&head(), 0).is_none());
        assert!(Shortlist::new(&head(), 9).is_some());
    }
}
