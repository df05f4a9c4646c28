//! Rollouts of the same prompt, which are accepted alike: one's record is the others' prior.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::acceptance::GroupHazard;
use crate::speculation::TokenId;

/// Prompts remembered; the one that was first met leaves first.
const MOST: usize = 4096;

/// What is known of one prompt's rollouts, by drafter.
#[derive(Debug, Default)]
pub struct Group {
    hazards: [GroupHazard; 4],
}

impl Group {
    /// The record of a drafter; those beyond the fourth share one.
    #[must_use]
    pub fn hazard(&self, drafter: usize) -> &GroupHazard {
        &self.hazards[drafter.min(self.hazards.len() - 1)]
    }
}

/// All prompts met of late. Looked up once a rollout.
#[derive(Debug, Default)]
pub struct Groups {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    groups: HashMap<u64, Arc<Group>>,
    /// In the order in which they were met.
    order: VecDeque<u64>,
}

impl Groups {
    /// The group of the rollouts of `prompt`. Two prompts whose hashes agree share one, which costs speed at most.
    #[must_use]
    pub fn of(&self, prompt: &[TokenId]) -> Arc<Group> {
        let mut hasher = DefaultHasher::new();
        prompt.hash(&mut hasher);
        let key = hasher.finish();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { groups, order } = &mut *known;
        if let Some(group) = groups.get(&key) {
            return Arc::clone(group);
        }
        if order.len() >= MOST
            && let Some(oldest) = order.pop_front()
        {
            groups.remove(&oldest);
        }
        order.push_back(key);
        Arc::clone(groups.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_of_one_prompt_share_a_record_and_old_prompts_are_forgotten() {
        let groups = Groups::default();
        groups.of(&[1, 2]).hazard(0).observe(0.5, false);
        assert!(groups.of(&[1, 2]).hazard(0).ratio() > 1.0);
        assert_eq!(groups.of(&[2, 1]).hazard(0).ratio(), 1.0);
        for token in 0..MOST as u32 {
            let _ = groups.of(&[9, token]);
        }
        assert_eq!(groups.of(&[1, 2]).hazard(0).ratio(), 1.0);
    }
}
