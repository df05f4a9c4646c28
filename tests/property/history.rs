//! Whatever the schedule: an old rollout serves one new one, never one of its own version or of another
//! tenant, and the store keeps to its bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::history::{Finish, History, Memory, PromptKey, RolloutId, Tenant};
use sidedraft::speculation::{Entry, Scored};

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Begin {
        key: usize,
    },
    Extend {
        rollout: usize,
        tokens: usize,
    },
    Finish {
        rollout: usize,
    },
    /// The trainer moves the weights.
    Update,
    Take {
        key: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..4_usize).prop_map(|key| Event::Begin { key }),
        4 => (any::<usize>(), 0..9_usize).prop_map(|(rollout, tokens)| Event::Extend { rollout, tokens }),
        3 => any::<usize>().prop_map(|rollout| Event::Finish { rollout }),
        1 => Just(Event::Update),
        4 => (0..4_usize).prop_map(|key| Event::Take { key }),
    ];
    vec(event, 0..80)
}

/// Two tenants by their salts, two by their API keys.
fn keys() -> Vec<PromptKey> {
    let tenants = [[Some("a"), None], [Some("a"), Some("salt")], [Some("b"), None], [None, None]];
    tenants.iter().map(|parts| PromptKey::new(Tenant::new(parts), "m", &[1, 2, 3])).collect()
}

fn scored(token: u32) -> Scored {
    let entry = |token, p: f64| Entry { token, logprob: p.ln() };
    Scored { token, logprob: -0.1, rank: None, top: vec![entry(7, 0.5), entry(8, 0.3), entry(9, 0.01)] }
}

/// What is known of a rollout besides the store.
#[derive(Debug)]
struct Begun {
    id: RolloutId,
    key: usize,
    /// The version it began under, then those that scored its tokens.
    versions: Vec<usize>,
    tokens: Vec<u32>,
    is_over: bool,
}

impl Begun {
    fn may_serve(&self, key: usize, version: usize) -> bool {
        self.key == key && self.is_over && !self.tokens.is_empty() && !self.versions.contains(&version)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_old_rollout_serves_one_new_one(events in events()) {
        let (store, keys) = (Memory::new(1 << 24), keys());
        let mut version = 0_usize;
        let mut begun: Vec<Begun> = Vec::new();
        let mut served = HashSet::new();
        for event in events {
            let name: Arc<str> = version.to_string().into();
            match event {
                Event::Begin { key } => {
                    let id = store.begin(&keys[key], &name, None);
                    begun.push(Begun { id, key, versions: vec![version], tokens: vec![], is_over: false });
                }
                Event::Extend { rollout, tokens } => {
                    let count = begun.len().max(1);
                    let Some(rollout) = begun.get_mut(rollout % count).filter(|rollout| !rollout.is_over) else { continue };
                    // A token tells whose it is.
                    let tokens = vec![rollout.id.0 as u32; tokens];
                    let scored: Vec<_> = tokens.iter().map(|token| scored(*token)).collect();
                    prop_assert!(store.extend(&keys[rollout.key], rollout.id, &name, &scored));
                    if !tokens.is_empty() {
                        rollout.versions.push(version);
                    }
                    rollout.tokens.extend(tokens);
                }
                Event::Finish { rollout } => {
                    let count = begun.len().max(1);
                    let Some(rollout) = begun.get_mut(rollout % count) else { continue };
                    rollout.is_over = true;
                    prop_assert!(store.finish(&keys[rollout.key], rollout.id, Finish::Stop));
                }
                Event::Update => version += 1,
                Event::Take { key } => {
                    let free = |rollout: &&Begun| {
                        rollout.may_serve(key, version) && !served.contains(&rollout.id)
                    };
                    let expected = begun.iter().rfind(free);
                    let lease = store.take(&keys[key], &name);
                    prop_assert_eq!(lease.as_ref().map(|lease| lease.id), expected.map(|rollout| rollout.id));
                    let (Some(lease), Some(rollout)) = (lease, expected) else { continue };
                    prop_assert_eq!(lease.rollout.tokens(), &rollout.tokens[..]);
                    let is_settled = |other: &Begun| other.is_over && !other.versions.contains(&version);
                    let mut earlier = begun.iter().filter(|other| other.key == key && other.versions[0] != version);
                    prop_assert_eq!(lease.is_unselected, earlier.all(is_settled));
                    prop_assert!(served.insert(lease.id), "twice");
                }
            }
        }
        for (number, key) in keys.iter().enumerate() {
            let mine: Vec<_> = begun.iter().filter(|rollout| rollout.key == number).map(|rollout| &rollout.tokens[..]).collect();
            let kept = store.rollouts(key);
            prop_assert_eq!(kept.iter().map(|rollout| rollout.tokens()).collect::<Vec<_>>(), mine);
        }
        prop_assert_eq!(store.usage().tokens, begun.iter().map(|rollout| rollout.tokens.len()).sum::<usize>());
    }

    #[test]
    fn a_full_store_keeps_to_its_bytes_and_the_latest_prompt(
        prompts in vec((0..6_u32, 1..40_usize), 1..60), most_bytes in 4000..20_000_usize,
    ) {
        let store = Memory::new(most_bytes);
        let version: Arc<str> = "1".into();
        let key = |prompt: u32| PromptKey::new(Tenant::new(&[]), "m", &[prompt]);
        for (prompt, tokens) in prompts {
            let id = store.begin(&key(prompt), &version, None);
            let scored: Vec<_> = (0..tokens as u32).map(scored).collect();
            prop_assert!(store.extend(&key(prompt), id, &version, &scored), "the latest is always kept");
            prop_assert!(store.finish(&key(prompt), id, Finish::Length));
            prop_assert_eq!(store.rollouts(&key(prompt)).last().unwrap().tokens().len(), tokens);
            prop_assert!(store.usage().bytes <= most_bytes, "{:?}", store.usage());
        }
    }
}

#[test]
fn takers_at_the_same_time_never_get_the_same_rollout() {
    let store = Memory::new(1 << 24);
    let key = &keys()[0];
    for _ in 0..200 {
        let id = store.begin(key, &"1".into(), None);
        store.extend(key, id, &"1".into(), &[scored(1)]);
        store.finish(key, id, Finish::Stop);
    }
    let take = || std::iter::from_fn(|| store.take(key, "2")).map(|lease| lease.id).collect::<Vec<_>>();
    let taken: Vec<RolloutId> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    assert_eq!(taken.len(), 200);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 200);
    assert!(take().is_empty() && store.take(key, "3").is_none(), "whom they served has taken their place");
}

#[test]
fn the_oldest_prompts_leave_first_and_what_is_forgotten_says_so() {
    let version: Arc<str> = "1".into();
    let key = |prompt: u32| PromptKey::new(Tenant::new(&[]), "m", &[prompt]);
    let full = |store: &Memory, prompt| {
        let id = store.begin(&key(prompt), &version, None);
        store.extend(&key(prompt), id, &version, &vec![scored(1); 1000]);
        id
    };
    let one = Memory::new(1 << 24);
    full(&one, 0);
    let store = Memory::new(3 * one.usage().bytes);
    let ids: HashMap<u32, RolloutId> = (0..5).map(|prompt| (prompt, full(&store, prompt))).collect();
    let kept: Vec<u32> = (0..5).filter(|prompt| !store.rollouts(&key(*prompt)).is_empty()).collect();
    assert_eq!(kept, [2, 3, 4]);
    assert!(!store.finish(&key(0), ids[&0], Finish::Stop) && store.take(&key(0), "2").is_none());
    assert!(store.finish(&key(2), ids[&2], Finish::Stop));
    assert!(!store.extend(&key(2), ids[&3], &version, &[]), "another prompt's");
}
