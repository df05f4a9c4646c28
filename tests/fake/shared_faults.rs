//! A Redis server that is gone, hangs, is full or holds something else than history costs drafts, is counted, and neither
//! changes an answer nor makes one late.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::exactness::{ids, request, small};
use super::redis_server::{RedisServer, figure, until, until_it};
use super::reuse::replays;
use super::rig::{Rig, endless, greedy};
use super::shared_history::{Pair, sharing};
use super::support::fake_vllm::FakeConfig;

const FLAGS: &str = "--replay --suffix";
const PATIENT: &str = "--replay --history-redis-patience 10000";

fn sample(n: usize) -> Value {
    request(&json!({"temperature": 1.0}), &json!({ "n": n }))
}

fn errors(rig: &Rig, kind: &str) -> f64 {
    figure(rig, "errors_total", &format!("\"{kind}\""))
}

/// Another prompt for each seed below 216.
fn prompt(seed: u32) -> Value {
    json!([5, seed % 6, seed / 6 % 6, seed / 36 % 6])
}

/// An answer of a few tokens to a prompt that may be new, so that it begins by asking Redis.
async fn is_right(rig: &Rig, seed: u32) {
    let mut body = greedy(6);
    body["prompt"] = prompt(seed);
    assert_eq!(ids(&rig.complete(&body).await), ids(&rig.complete_directly(&body).await));
}

/// The median time of such answers to new prompts, and of the same from the server itself.
async fn medians(rig: &Rig, seeds: std::ops::Range<u32>) -> (Duration, Duration) {
    let mut times = [Vec::new(), Vec::new()];
    for seed in seeds {
        let mut body = greedy(6);
        body["prompt"] = prompt(seed);
        let started = Instant::now();
        rig.complete(&body).await;
        times[0].push(started.elapsed());
        let started = Instant::now();
        rig.complete_directly(&body).await;
        times[1].push(started.elapsed());
    }
    let [through, direct] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    (through, direct)
}

/// What a sick Redis adds to an answer of six tokens, at the median.
fn assert_adds_no_time(healthy: (Duration, Duration), sick: (Duration, Duration)) {
    let added = |(through, direct): (Duration, Duration)| through.saturating_sub(direct);
    let more = added(sick).saturating_sub(added(healthy));
    assert!(more < Duration::from_millis(5), "{healthy:?} {sick:?}");
}

async fn healthy() -> (RedisServer, Rig, (Duration, Duration)) {
    let redis = RedisServer::start().await;
    let rig = sharing(&redis, FakeConfig { language: endless(), ..FakeConfig::default() }, FLAGS).await;
    let times = medians(&rig, 0..40).await;
    (redis, rig, times)
}

#[tokio::test]
async fn killed() {
    let (mut redis, rig, before) = healthy().await;
    redis.kill().await;
    let after = medians(&rig, 40..80).await;
    assert_adds_no_time(before, after);
    for seed in 80..90 {
        is_right(&rig, seed).await;
    }
    assert!(errors(&rig, "broken") + errors(&rig, "connect") > 0.0);
    assert!(figure(&rig, "records_total", "\"failed\"") > 0.0);
    assert_eq!(figure(&rig, "connected", ""), 0.0);
    redis.restart().await;
    let mut seed = 90;
    while figure(&rig, "connected", "") == 0.0 {
        is_right(&rig, seed).await;
        seed += 1;
    }
    let written = figure(&rig, "records_total", "\"written\"");
    // One of which nothing is kept leaves no record.
    while figure(&rig, "records_total", "\"written\"") <= written {
        is_right(&rig, seed).await;
        seed += 1;
    }
}

#[tokio::test]
async fn hung() {
    let (redis, rig, before) = healthy().await;
    redis.hang();
    let after = medians(&rig, 40..80).await;
    assert_adds_no_time(before, after);
    let mut seed = 80;
    while errors(&rig, "timeout") + errors(&rig, "connect") == 0.0 {
        is_right(&rig, seed).await;
        seed += 1;
    }
    assert!(figure(&rig, "late_total", "") > 0.0, "some began without waiting");
    redis.go_on();
    while figure(&rig, "connected", "") == 0.0 {
        is_right(&rig, seed).await;
        seed += 1;
    }
}

#[tokio::test]
async fn full() {
    let redis = RedisServer::start().await;
    let rig = sharing(&redis, small(), PATIENT).await;
    rig.sidecar.update_weights(1).await;
    redis.moved(1, "1").await;
    for flag in ["maxmemory-policy noeviction", "maxmemory 1"] {
        let _: String = redis.ask(&format!("CONFIG SET {flag}")).await;
    }
    rig.complete(&sample(4)).await;
    until(&rig, "sidedraft_history_redis_records_total", "\"failed\"", 4.0).await;
    assert!(errors(&rig, "full") >= 4.0);
    is_right(&rig, 1).await;
    rig.sidecar.update_weights(2).await;
    rig.complete(&sample(6)).await;
    assert_eq!(replays(&rig, ""), 4.0, "it hands out itself what it could not share");
    let _: String = redis.ask("CONFIG SET maxmemory 0").await;
    rig.complete(&sample(2)).await;
    // Those before may still have been waiting to be told of when there was room again.
    until_it(&rig, "sidedraft_history_redis_records_total", "\"written\"", |written| written >= 2.0).await;
}

#[tokio::test]
async fn a_full_one_takes_no_time() {
    let (redis, rig, before) = healthy().await;
    for flag in ["maxmemory-policy noeviction", "maxmemory 1"] {
        let _: String = redis.ask(&format!("CONFIG SET {flag}")).await;
    }
    let after = medians(&rig, 40..80).await;
    assert_adds_no_time(before, after);
    assert!(errors(&rig, "full") > 0.0);
}

#[tokio::test]
async fn corrupted() {
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(&str, Change); 4] = [
        ("seal", |mut record| {
            let middle = record.len() / 2;
            record[middle] ^= 1;
            record
        }),
        ("seal", |record| record[..record.len() - 1].to_vec()),
        ("format", |_| b"what is this".to_vec()),
        ("format", |_| Vec::new()),
    ];
    for (reason, change) in changes {
        let pair = Pair::start(FakeConfig { language: endless(), ..small() }, PATIENT).await;
        pair.rigs[0].complete(&sample(3)).await;
        pair.update_weights(2).await;
        assert_eq!(pair.redis.change("r:", change).await, 3);
        let other = &pair.rigs[1];
        other.complete(&sample(3)).await;
        assert_eq!(figure(other, "refused_total", &format!("\"{reason}\"")), 3.0);
        assert_eq!(replays(other, ""), 0.0);
        is_right(other, 7).await;
    }
}

#[tokio::test]
async fn corrupted_texts() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let pair = Pair::start(config, "--suffix").await;
    let [one, other] = &pair.rigs;
    is_right(one, 3).await;
    until(one, "sidedraft_history_redis_records_total", "\"written\"", 1.0).await;
    assert_eq!(pair.redis.change("t:", |text| [text, vec![0]].concat()).await, 1);
    for _ in 0..2 {
        is_right(other, 3).await;
        until(other, "sidedraft_history_redis_refused_total", "\"seal\"", 1.0).await;
    }
    assert_eq!(figure(other, "records_total", "\"indexed\""), 0.0);
}

#[tokio::test]
async fn something_else_where_history_should_be() {
    let pair = Pair::start(FakeConfig { language: endless(), ..small() }, PATIENT).await;
    let [one, other] = &pair.rigs;
    one.complete(&sample(2)).await;
    pair.update_weights(2).await;
    let prompt = pair.redis.prompts().await.remove(0);
    let _: i64 = pair.redis.ask(&format!("DEL {prompt}")).await;
    let _: String = pair.redis.ask(&format!("SET {prompt} x")).await;
    other.complete(&sample(2)).await;
    until(other, "sidedraft_history_redis_records_total", "\"failed\"", 2.0).await;
    assert!(errors(other, "wrong_type") >= 3.0, "the claim, and each rollout");
    assert_eq!(replays(other, ""), 0.0);
    is_right(other, 7).await;
    pair.update_weights(3).await;
    other.complete(&sample(2)).await;
    assert_eq!(replays(other, "\"unused\""), 2.0, "its own, of which nothing was heard");
}

#[tokio::test]
async fn one_that_is_not_there_when_the_sidecar_starts() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    drop(redis);
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let flags = format!("{FLAGS} --history-redis {url}");
    let rig = super::rig::Plan::new(config).flags(&flags).start().await;
    is_right(&rig, 1).await;
    until(&rig, "sidedraft_history_redis_connected", "", 0.0).await;
    assert!(errors(&rig, "connect") > 0.0);
}
