//! The members of a metric family, found again without the family's lock.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Members that were asked for so far. A family finds one by hashing its labels under a lock that all rollouts share; so
/// each is asked for once, and then stands in a place of its own. Clones share the places.
#[derive(Clone)]
pub(super) struct Members<L, M> {
    places: Arc<[OnceLock<(L, M)>]>,
}

impl<L: Copy + PartialEq, M: Clone> Members<L, M> {
    /// Places for `most` members; those beyond are asked for each time.
    pub(super) fn new(most: usize) -> Self {
        Self { places: (0..most).map(|_| OnceLock::new()).collect() }
    }

    /// The member of these labels, which `ask` gets from the family. It is looked for from the place `first` on, so labels
    /// with places of their own are found at once.
    pub(super) fn of(&self, first: usize, label: L, ask: impl Fn() -> M) -> Cow<'_, M> {
        for place in self.places.iter().skip(first) {
            let (of, member) = place.get_or_init(|| (label, ask()));
            if *of == label {
                return Cow::Borrowed(member);
            }
        }
        Cow::Owned(ask())
    }
}

impl<L, M> fmt::Debug for Members<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("places", &self.places.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_member_is_asked_for_once_and_those_without_a_place_each_time() {
        let members = Members::new(2);
        let asked = Cell::new(0);
        let of = |label: &'static str| {
            let member = members.of(0, label, || {
                asked.set(asked.get() + 1);
                label.to_owned()
            });
            member.into_owned()
        };
        for _ in 0..3 {
            assert_eq!(["a", "b"].map(of), ["a", "b"]);
        }
        assert_eq!(asked.get(), 2);
        assert_eq!(["c", "c", "a"].map(of), ["c", "c", "a"]);
        assert_eq!(asked.get(), 4);
    }

    #[test]
    fn a_number_has_its_own_place_or_none() {
        let members = Members::new(4);
        for number in [3, 0, 9, 3] {
            assert_eq!(*members.of(number, number, || number * 10), number * 10);
        }
        let taken: Vec<bool> = members.places.iter().map(|place| place.get().is_some()).collect();
        assert_eq!(taken, [true, false, false, true]);
    }
}
