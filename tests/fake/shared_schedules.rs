//! Whatever the schedule of several sidecars with one Redis server: an old rollout serves one new one, never one of its own
//! version or of another tenant, and its rows are used only where that it was there says nothing of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use sidedraft::history::shared::{Reporter, Shared, SharedOptions};
use sidedraft::history::{Finish, History, Lease, PromptKey, RolloutId, Tenant};
use sidedraft::speculation::{Entry, Sampling, Scored};
use tokio::runtime::Runtime;

use super::redis_server::RedisServer;

const SIDECARS: usize = 3;

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Begin {
        sidecar: usize,
        key: usize,
    },
    Extend {
        rollout: usize,
        tokens: usize,
    },
    Finish {
        rollout: usize,
    },
    /// A sidecar's weights move.
    Update {
        sidecar: usize,
    },
    Take {
        sidecar: usize,
        key: usize,
        count: usize,
    },
    /// All connections break.
    Break,
}

fn events(breaks: bool) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0..SIDECARS, 0..2_usize).prop_map(|(sidecar, key)| Event::Begin { sidecar, key }),
        6 => (any::<usize>(), 0..4_usize).prop_map(|(rollout, tokens)| Event::Extend { rollout, tokens }),
        5 => any::<usize>().prop_map(|rollout| Event::Finish { rollout }),
        3 => (0..SIDECARS).prop_map(|sidecar| Event::Update { sidecar }),
        4 => (0..SIDECARS, 0..2_usize, 1..4_usize)
            .prop_map(|(sidecar, key, count)| Event::Take { sidecar, key, count }),
        u32::from(breaks) => Just(Event::Break),
    ];
    vec(event, 0..80)
}

/// Where a rollout that is over is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// With the sidecar that has it under way, or that may hand it out.
    At(usize),
    Redis,
    Served,
}

#[derive(Debug)]
struct Begun {
    sidecar: usize,
    id: RolloutId,
    key: usize,
    /// The version it began under, then those that scored its tokens.
    versions: Vec<usize>,
    tokens: Vec<u32>,
    is_over: bool,
    place: Place,
    /// Who has it in memory besides.
    adopted: Vec<usize>,
}

/// The sidecars, and what is known of their rollouts besides.
struct World {
    sidecars: Vec<Arc<Shared>>,
    keys: Vec<PromptKey>,
    versions: [usize; SIDECARS],
    begun: Vec<Begun>,
}

fn sidecar(redis: &RedisServer, prefix: &str) -> Arc<Shared> {
    let options = SharedOptions {
        url: redis.url().parse().unwrap(),
        prefix: prefix.to_owned(),
        ttl: Duration::from_secs(60),
        patience: Duration::from_secs(10),
        replays: true,
        texts: false,
    };
    Shared::start(options, 1 << 24, None, Reporter::new(|_| {})).unwrap()
}

/// Two tenants that say the same.
fn keys() -> Vec<PromptKey> {
    ["a", "b"].iter().map(|key| PromptKey::new(Tenant::new(&[Some(key)]), "m", &[1, 2, 3])).collect()
}

fn name(version: usize) -> Arc<str> {
    version.to_string().into()
}

fn scored(token: u32) -> Scored {
    let entry = |token, p: f64| Entry { token, logprob: p.ln() };
    Scored { token, logprob: -0.1, rank: None, top: vec![entry(7, 0.5), entry(8, 0.3), entry(9, 0.01)] }
}

/// Returns once Redis has been told and asked all that this sidecar had for it.
async fn settle(sidecar: &Shared) {
    let nobodys = PromptKey::new(Tenant::new(&[]), "none", &[0]);
    loop {
        match sidecar.expect(&nobodys, &name(0), 0) {
            Some(arrival) => return arrival.await,
            // Before the first connection nobody waits.
            None => tokio::task::yield_now().await,
        }
    }
}

impl World {
    async fn new(redis: &RedisServer, prefix: &str) -> Self {
        let sidecars: Vec<_> = (0..SIDECARS).map(|_| sidecar(redis, prefix)).collect();
        for sidecar in &sidecars {
            settle(sidecar).await;
            sidecar.moved(&name(0)).await;
        }
        Self { sidecars, keys: keys(), versions: [0; SIDECARS], begun: Vec::new() }
    }

    async fn happens(&mut self, event: Event, is_sound: bool) -> Result<(), TestCaseError> {
        let count = self.begun.len().max(1);
        match event {
            Event::Begin { sidecar, key } => {
                let version = self.versions[sidecar];
                let sampling = Sampling::new(1.0, None, 1.0, 0.0);
                let id = self.sidecars[sidecar].begin(&self.keys[key], &name(version), sampling);
                let (versions, place) = (vec![version], Place::At(sidecar));
                let (tokens, adopted) = (vec![], vec![sidecar]);
                self.begun.push(Begun { sidecar, id, key, versions, tokens, is_over: false, place, adopted });
            }
            Event::Extend { rollout, tokens } => {
                let at = rollout % count;
                let Some(rollout) = self.begun.get_mut(at).filter(|rollout| !rollout.is_over) else { return Ok(()) };
                let version = self.versions[rollout.sidecar];
                // A token tells whose it is.
                let tokens = vec![at as u32; tokens];
                let scored: Vec<_> = tokens.iter().map(|token| scored(*token)).collect();
                let (sidecar, key) = (&self.sidecars[rollout.sidecar], &self.keys[rollout.key]);
                prop_assert!(sidecar.extend(key, rollout.id, &name(version), &scored));
                if !tokens.is_empty() {
                    rollout.versions.push(version);
                }
                rollout.tokens.extend(tokens);
            }
            Event::Finish { rollout } => {
                let rollout = self.begun.get_mut(rollout % count).filter(|rollout| !rollout.is_over);
                let Some(rollout) = rollout else { return Ok(()) };
                rollout.is_over = true;
                rollout.place = Place::Redis;
                let sidecar = &self.sidecars[rollout.sidecar];
                prop_assert!(sidecar.finish(&self.keys[rollout.key], rollout.id, Finish::Stop));
            }
            Event::Update { sidecar } => {
                self.versions[sidecar] += 1;
                self.sidecars[sidecar].moved(&name(self.versions[sidecar])).await;
            }
            Event::Take { sidecar, key, count } => self.take(sidecar, key, count, is_sound).await?,
            Event::Break => {}
        }
        Ok(())
    }

    /// New rollouts begin; where the connections are `sound`, it is known how many old ones they get and how.
    async fn take(&mut self, sidecar: usize, key: usize, count: usize, is_sound: bool) -> Result<(), TestCaseError> {
        let version = self.versions[sidecar];
        if is_sound {
            for sidecar in &self.sidecars {
                settle(sidecar).await;
            }
        }
        if let Some(arrival) = self.sidecars[sidecar].expect(&self.keys[key], &name(version), count) {
            arrival.await;
        }
        let is_free = |rollout: &&Begun| {
            let may_serve = rollout.is_over && !rollout.tokens.is_empty() && !rollout.versions.contains(&version);
            let has_left = !rollout.versions.contains(&self.versions[rollout.sidecar]) || rollout.sidecar == sidecar;
            let place = rollout.place;
            rollout.key == key && may_serve && (place == Place::At(sidecar) || place == Place::Redis && has_left)
        };
        let expected = self.begun.iter().filter(is_free).count().min(count);
        let is_unselected = self.is_unselected(sidecar, key, version);
        let leases: Vec<Lease> =
            (0..count).map_while(|_| self.sidecars[sidecar].take(&self.keys[key], &name(version))).collect();
        if is_sound {
            prop_assert_eq!(leases.len(), expected);
        }
        for lease in leases {
            let rollout = &mut self.begun[lease.rollout.tokens()[0] as usize];
            prop_assert!(rollout.place != Place::Served, "twice");
            prop_assert_eq!(lease.rollout.tokens(), &rollout.tokens[..]);
            prop_assert!(rollout.key == key && rollout.is_over && !rollout.versions.contains(&version));
            if is_sound {
                prop_assert_eq!(lease.is_unselected, is_unselected);
                let has_left = !rollout.versions.contains(&self.versions[rollout.sidecar]);
                prop_assert!(has_left || rollout.sidecar == sidecar);
            }
            rollout.place = Place::Served;
            rollout.adopted.push(sidecar);
        }
        Ok(())
    }

    fn is_unselected(&self, sidecar: usize, key: usize, version: usize) -> bool {
        let mut earlier = self.begun.iter().filter(|rollout| rollout.key == key && rollout.versions[0] != version);
        earlier.all(|rollout| {
            let is_known =
                rollout.place == Place::Redis && !rollout.tokens.is_empty() || rollout.adopted.contains(&sidecar);
            rollout.is_over && !(is_known && rollout.versions.contains(&version))
        })
    }
}

fn all_schedules(cases: u32, breaks: bool) {
    let runtime = Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start());
    let prefix = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let result = runner.run(&events(breaks), |events| {
        prefix.set(prefix.get() + 1);
        runtime.block_on(async {
            let mut world = World::new(&redis, &format!("case-{}", prefix.get())).await;
            let mut is_sound = true;
            for event in events {
                if matches!(event, Event::Break) {
                    let _: i64 = redis.ask("CLIENT KILL TYPE normal").await;
                    is_sound = false;
                }
                world.happens(event, is_sound).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn an_old_rollout_serves_one_new_one_whichever_sidecar_it_is() {
    all_schedules(100, false);
}

#[test]
fn an_old_rollout_serves_one_new_one_also_where_connections_break() {
    all_schedules(60, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_ask_at_the_same_time_never_get_the_same_rollout() {
    let redis = RedisServer::start().await;
    let sidecars: Vec<_> = (0..SIDECARS).map(|_| sidecar(&redis, "all")).collect();
    let key = &keys()[0];
    for sidecar in &sidecars {
        settle(sidecar).await;
        for _ in 0..50 {
            let id = sidecar.begin(key, &name(1), None);
            sidecar.extend(key, id, &name(1), &[scored(1)]);
            sidecar.finish(key, id, Finish::Stop);
        }
        sidecar.moved(&name(2)).await;
    }
    for sidecar in &sidecars {
        settle(sidecar).await;
    }
    let takers = sidecars.into_iter().map(|sidecar| {
        tokio::spawn(async move {
            let mut taken = 0;
            for _ in 0..20 {
                if let Some(arrival) = sidecar.expect(&keys()[0], &name(2), 3) {
                    arrival.await;
                }
                taken += std::iter::from_fn(|| sidecar.take(&keys()[0], "2")).count();
            }
            taken
        })
    });
    let taken: Vec<usize> = futures_util::future::join_all(takers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(taken.iter().sum::<usize>(), 150, "{taken:?}");
    assert!(HashSet::from([0]).is_disjoint(&taken.iter().copied().collect()), "{taken:?}");
}
