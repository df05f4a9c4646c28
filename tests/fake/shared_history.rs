//! Sidecars that share their history through a Redis server: what one has finished is drafted by another, once, on behalf
//! of the same tenant, and answers are as they were.

use std::sync::Arc;

use serde_json::{Value, json};
use sidedraft::speculation::{Lossless, Proposal};

use super::drafters::told;
use super::exactness::{compare, expecting, ids, request, small};
use super::redis_server::{RedisServer, figure, until};
use super::reuse::{TENANTS, complete_as, far_apart, replays};
use super::rig::{Plan, Rig, endless, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::stats::GTest;

/// Long enough that what was sent for comes.
const PATIENT: &str = "--history-redis-patience 10000";

/// A sidecar whose own drafters have no idea, once it is connected.
pub async fn sharing(redis: &RedisServer, config: FakeConfig, flags: &str) -> Rig {
    let flags = format!("{flags} --history-redis {}", redis.url());
    let drafters = told(|_| Ok(Proposal::default()));
    let rig = Plan::new(config).drafters(drafters).flags(&flags).rule(Arc::new(Lossless)).start().await;
    until(&rig, "sidedraft_history_redis_connected", "", 1.0).await;
    rig
}

/// Sidecars with servers of their own that all have the same weights.
pub struct Pair {
    pub redis: RedisServer,
    pub rigs: [Rig; 2],
}

impl Pair {
    pub async fn start(config: FakeConfig, flags: &str) -> Self {
        let redis = RedisServer::start().await;
        let rigs = [sharing(&redis, config.clone(), flags).await, sharing(&redis, config, flags).await];
        let pair = Self { redis, rigs };
        pair.update_weights(1).await;
        pair
    }

    /// Moves the weights of both, and waits until both have told.
    pub async fn update_weights(&self, label: u32) {
        for rig in &self.rigs {
            rig.sidecar.update_weights(label).await;
        }
        self.redis.moved(2, &label.to_string()).await;
    }
}

fn sample(n: usize) -> Value {
    request(&json!({"temperature": 1.0}), &json!({ "n": n }))
}

fn records(rig: &Rig, outcome: &str) -> f64 {
    figure(rig, "records_total", &format!("\"{outcome}\""))
}

#[tokio::test]
async fn a_rollout_finished_in_one_is_replayed_by_the_other_and_by_nobody_else() {
    let pair = Pair::start(small(), &format!("--replay {PATIENT}")).await;
    pair.rigs[0].complete(&sample(4)).await;
    pair.update_weights(2).await;
    let [one, other] = &pair.rigs;
    assert_eq!(records(one, "written"), 4.0);
    other.complete(&sample(3)).await;
    assert_eq!((replays(other, "\"used\""), records(other, "imported")), (3.0, 3.0));
    one.complete(&sample(5)).await;
    assert_eq!((replays(one, "\"used\""), records(one, "claimed")), (1.0, 1.0), "the last one left");
    until(one, "sidedraft_history_redis_records_total", "\"written\"", 9.0).await;
    assert_eq!(pair.redis.fields(&pair.redis.prompts().await[0], "g:").await, [""; 0], "none is under way");
}

#[tokio::test]
async fn rollouts_under_way_elsewhere_make_those_that_are_over_point_masses() {
    let pair = Pair::start(small(), &format!("--replay {PATIENT}")).await;
    pair.rigs[0].complete(&sample(2)).await;
    pair.update_weights(2).await;
    // A mark as that of a sidecar which stopped in the middle of a rollout of the first version.
    let prompt = pair.redis.prompts().await.remove(0);
    let now: (u64, u64) = pair.redis.ask("TIME").await;
    let begun = now.0 * 1_000_000;
    let mark = "g:00000000000000aa:0000000000000001";
    let _: i64 = pair.redis.ask(&format!("HSET {prompt} {mark} {begun:016}:00000000000000bb")).await;
    let other = &pair.rigs[1];
    other.complete(&sample(1)).await;
    assert_eq!((replays(other, "\"unused\""), replays(other, "\"used\"")), (1.0, 0.0));
    let _: i64 = pair.redis.ask(&format!("HDEL {prompt} {mark}")).await;
    other.complete(&sample(1)).await;
    assert_eq!((replays(other, "\"unused\""), replays(other, "\"used\"")), (1.0, 1.0));
}

#[tokio::test]
async fn what_a_sidecar_said_under_the_version_that_it_still_has_is_not_handed_out() {
    let pair = Pair::start(small(), &format!("--replay {PATIENT}")).await;
    let [one, other] = &pair.rigs;
    one.complete(&sample(2)).await;
    other.sidecar.update_weights(2).await;
    other.complete(&sample(2)).await;
    assert_eq!((replays(other, ""), records(other, "imported")), (0.0, 0.0), "it may yet say more");
    one.sidecar.update_weights(2).await;
    pair.redis.moved(2, "2").await;
    other.complete(&sample(2)).await;
    assert_eq!(replays(other, "\"used\""), 2.0);
}

#[tokio::test]
async fn what_one_said_is_indexed_by_the_other() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let pair = Pair::start(config, "--suffix --decode-burst 1").await;
    pair.update_weights(2).await;
    let [one, other] = &pair.rigs;
    let accepted = |rig: &Rig| rig.metric("sidedraft_accepted_tokens_total", "\"suffix\"");
    let direct = ids(&one.complete_directly(&greedy(12)).await);
    assert_eq!(ids(&one.complete(&greedy(12)).await), direct);
    until(one, "sidedraft_history_redis_records_total", "\"written\"", 1.0).await;
    // The first request of the prompt sends for it, and does not wait.
    let mut first = greedy(12);
    first["max_tokens"] = json!(1);
    other.complete(&first).await;
    until(other, "sidedraft_history_redis_records_total", "\"indexed\"", 1.0).await;
    let before = accepted(other);
    assert_eq!(ids(&other.complete(&greedy(12)).await), direct);
    assert!(accepted(other) - before > accepted(one) + 4.0, "{} and {}", accepted(other) - before, accepted(one));
}

#[tokio::test]
async fn a_tenants_history_reaches_no_other_through_redis() {
    let config = FakeConfig { language: endless(), ..small() };
    let pair = Pair::start(config, &format!("--replay --suffix {PATIENT}")).await;
    let body = sample(1);
    let (key, salt) = TENANTS[0];
    complete_as(&pair.rigs[0], key, salt, &body).await;
    pair.update_weights(2).await;
    let other = &pair.rigs[1];
    for (key, salt) in &TENANTS[1..] {
        complete_as(other, key, *salt, &body).await;
    }
    assert_eq!((replays(other, ""), records(other, "imported"), records(other, "indexed")), (0.0, 0.0, 0.0));
    complete_as(other, key, salt, &body).await;
    assert_eq!((replays(other, "\"used\""), records(other, "imported")), (1.0, 1.0));
    let mut everything = String::new();
    for name in pair.redis.ask::<Vec<String>>("KEYS *").await {
        let kind: String = pair.redis.ask(&format!("TYPE {name}")).await;
        let read = if kind == "hash" { "HGETALL" } else { "GET" };
        let content: redis::Value = pair.redis.ask(&format!("{read} {name}")).await;
        everything += &format!("{name} {content:?}\n");
    }
    let secrets: Vec<&str> = TENANTS.iter().flat_map(|(key, salt)| [Some(*key), *salt]).flatten().collect();
    // As they are, and as debug output prints bytes.
    let spelled = |text: &str| format!("{:?}", text.as_bytes());
    let spelled = |text: &str| spelled(text).trim_matches(['[', ']']).to_owned();
    assert!(secrets.iter().all(|text| !everything.contains(text) && !everything.contains(&spelled(text))));
    assert!(everything.contains("sidedraft:p:"), "{everything}");
}

#[tokio::test]
async fn another_tenants_record_is_refused_also_where_it_is_put_under_this_ones_name() {
    let pair = Pair::start(small(), &format!("--replay {PATIENT}")).await;
    let body = sample(1);
    complete_as(&pair.rigs[0], "key-a", None, &body).await;
    until(&pair.rigs[0], "sidedraft_history_redis_records_total", "\"written\"", 1.0).await;
    let of_a = pair.redis.prompts().await;
    complete_as(&pair.rigs[0], "key-b", None, &body).await;
    pair.update_weights(2).await;
    let of_b: Vec<String> = pair.redis.prompts().await.into_iter().filter(|name| !of_a.contains(name)).collect();
    let _: String = pair.redis.ask(&format!("RENAME {} {}", of_a[0], of_b[0])).await;
    complete_as(&pair.rigs[1], "key-b", None, &body).await;
    assert_eq!(replays(&pair.rigs[1], ""), 0.0);
    assert_eq!(figure(&pair.rigs[1], "refused_total", "\"seal\""), 1.0);
}

/// Rollouts of one sidecar under the second policy that replay those that the other finished under the first; their fit
/// to the second's law. A tenant for each round: where rollouts of the first policy replayed in turn those that the
/// rounds before said under the second, each would follow its law, and yet resemble the ones before.
async fn replayed(config: FakeConfig, flags: &str) -> (Pair, GTest) {
    const AT_ONCE: usize = 50;
    let pair = Pair::start(config, &format!("{flags} {PATIENT}")).await;
    let mut outputs = Vec::new();
    for round in 0..12 {
        let tenant = format!("round-{round}");
        pair.update_weights(1).await;
        for _ in 0..4 {
            complete_as(&pair.rigs[0], "key", Some(&tenant), &sample(AT_ONCE)).await;
        }
        pair.update_weights(2).await;
        for _ in 0..4 {
            outputs.extend(complete_as(&pair.rigs[1], "key", Some(&tenant), &sample(AT_ONCE)).await);
        }
        let used = replays(&pair.rigs[1], "\"used\"");
        assert_eq!(used, f64::from((round + 1) * 4 * AT_ONCE as u32), "in round {round}");
    }
    assert_eq!(replays(&pair.rigs[0], ""), 0.0, "independent of each other");
    let fit = compare(&pair.rigs[1], &outputs, &expecting(|_| {}));
    (pair, fit)
}

#[tokio::test]
async fn rollouts_that_replay_those_of_another_sidecar_follow_the_new_policy() {
    let (pair, first) = replayed(far_apart(small()), "--replay").await;
    if first.p_value < 1e-3 {
        let (_, second) = replayed(far_apart(small()), "--replay").await;
        assert!(second.p_value > 1e-3, "{first:?}, then {second:?}");
    }
    let accepted = pair.rigs[1].metric("sidedraft_accepted_tokens_total", "\"replay\"");
    assert!(accepted > 400.0, "{accepted}");
}

#[tokio::test]
async fn the_doctor_says_whether_redis_answers_and_never_its_password() {
    const WORD: &str = "pass-word-5d2e";
    let redis = RedisServer::start().await;
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let mut link = redis.connect().await;
    let secret: String = redis::cmd("CONFIG").arg(&["SET", "requirepass", WORD]).query_async(&mut link).await.unwrap();
    assert_eq!(secret, "OK");
    for (url, finding) in [
        (format!("{}?pass={WORD}", redis.url()), "ok    shared history        Redis 7."),
        (format!("{}?pass={WORD}-not", redis.url()), "slow  shared history"),
        (format!("redis://user:{WORD}@127.0.0.1:9"), "slow  shared history"),
    ] {
        let mut doctor = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidedraft"));
        doctor.args(["doctor", "--upstream", &fake.url(), "--tokenizer", tokenizer.to_str().unwrap(), "--replay"]);
        let output = doctor.env("SIDEDRAFT_HISTORY_REDIS", &url).output().await.unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && report.contains(finding), "{report}");
        assert!(!report.contains(WORD) && !String::from_utf8(output.stderr).unwrap().contains(WORD), "{report}");
    }
}

#[tokio::test]
async fn a_password_is_used_and_a_wrong_one_counted() {
    let redis = RedisServer::start().await;
    let mut link = redis.connect().await;
    let _: String = redis::cmd("CONFIG").arg(&["SET", "requirepass", "word"]).query_async(&mut link).await.unwrap();
    for (word, connected) in [("word", 1.0), ("wrong", 0.0)] {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let flags = format!("--replay --history-redis {}?pass={word}", redis.url());
        let rig = Plan::new(config).flags(&flags).start().await;
        let denied = 1.0 - connected;
        if denied > 0.0 {
            while figure(&rig, "errors_total", "\"denied\"") < denied {
                tokio::task::yield_now().await;
            }
        }
        until(&rig, "sidedraft_history_redis_connected", "", connected).await;
        assert_eq!(ids(&rig.complete(&greedy(5)).await), ids(&rig.complete_directly(&greedy(5)).await));
    }
}
