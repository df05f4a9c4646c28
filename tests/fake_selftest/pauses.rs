//! `/pause` in its three ways, `/sleep`, and what is under way.

use serde_json::{Value, json};

use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::{CHAT, COMPLETIONS, GENERATE, get, ids, ok, post, tell};

fn four_tokens() -> Value {
    json!({"prompt": [1, 2], "max_tokens": 4, "ignore_eos": true, "return_token_ids": true})
}

async fn is_paused(fake: &FakeVllm) -> bool {
    get(fake, "/is_paused").await.1 == r#"{"is_paused":true}"#
}

#[tokio::test]
async fn keep_freezes_what_runs_and_queues_what_comes() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(COMPLETIONS, 2);
    let (first, second, ()) = tokio::join!(
        ok(&fake, COMPLETIONS, four_tokens()),
        async {
            hold.reached().await;
            fake.wait_for_queued(1).await;
            ok(&fake, GENERATE, json!({"token_ids": [1, 2], "sampling_params": {"max_tokens": 1}})).await
        },
        async {
            hold.reached().await;
            assert_eq!(tell(&fake, "/pause?mode=keep").await, json!({"status": "paused"}));
            assert!(is_paused(&fake).await && fake.is_paused());
            hold.release();
            let body = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1});
            let waiting = post(&fake, CHAT, &body);
            let (waiting, ()) = tokio::join!(waiting, async {
                fake.wait_for_queued(2).await;
                assert_eq!(fake.begun(), 1, "frozen, but not done");
                tell(&fake, "/resume").await;
            });
            assert_eq!(waiting.0, 200);
        }
    );
    assert_eq!(first["usage"]["completion_tokens"], 4);
    assert_eq!(second["usage"]["completion_tokens"], 1);
    assert!(!is_paused(&fake).await);
}

#[tokio::test]
async fn wait_returns_when_what_runs_is_done() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(COMPLETIONS, 2);
    let (running, later) = tokio::join!(ok(&fake, COMPLETIONS, four_tokens()), async {
        hold.reached().await;
        let (paused, ()) = tokio::join!(tell(&fake, "/pause?mode=wait"), async {
            fake.wait_until_paused().await;
            assert_eq!(fake.begun(), 1);
            hold.release();
        });
        assert_eq!((paused, fake.begun()), (json!({"status": "paused"}), 0));
        let later = ok(&fake, COMPLETIONS, four_tokens());
        let (later, ()) = tokio::join!(later, async {
            fake.wait_for_queued(1).await;
            tell(&fake, "/resume").await;
        });
        later
    });
    assert_eq!(running["choices"][0]["finish_reason"], "length");
    assert_eq!(later["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn abort_is_what_a_pause_does_unless_told() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(COMPLETIONS, 3);
    let (reply, _) = tokio::join!(ok(&fake, COMPLETIONS, four_tokens()), async {
        hold.reached().await;
        tell(&fake, "/pause").await
    });
    let choice = &reply["choices"][0];
    assert_eq!((&choice["finish_reason"], choice["token_ids"].as_array().unwrap().len()), (&json!("abort"), 3));
}

#[tokio::test]
async fn a_pause_empties_the_prefix_cache_unless_told_not_to() {
    let fake = FakeVllm::start_default().await;
    let body = json!({"prompt": ids(40, 1), "max_tokens": 1});
    let cached = async || {
        ok(&fake, COMPLETIONS, body.clone()).await["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!((cached().await, cached().await), (0, 32));
    for (path, expected) in [("/pause?mode=wait&clear_cache=false", 32), ("/pause?mode=wait", 0)] {
        tell(&fake, path).await;
        tell(&fake, "/resume").await;
        assert_eq!(cached().await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_cache_in_use_is_not_reset() {
    let fake = FakeVllm::start_default().await;
    let hold = fake.hold_at_token(COMPLETIONS, 2);
    tokio::join!(ok(&fake, COMPLETIONS, four_tokens()), async {
        hold.reached().await;
        assert_eq!(tell(&fake, "/reset_prefix_cache").await, json!({"success": false}));
        let forced = "/reset_prefix_cache?reset_running_requests=true";
        assert_eq!(tell(&fake, forced).await, json!({"success": true}));
        hold.release();
    });
    assert_eq!(tell(&fake, "/reset_prefix_cache").await, json!({"success": true}));
}

#[tokio::test]
async fn a_sleeping_server_wakes_part_by_part() {
    let fake = FakeVllm::start_default().await;
    let asleep = async || get(&fake, "/is_sleeping").await.1 == r#"{"is_sleeping":true}"#;
    assert!(!asleep().await);
    assert_eq!(tell(&fake, "/sleep?level=2").await, json!({"status": "sleeping", "level": 2}));
    assert!(asleep().await && is_paused(&fake).await);
    let part = tell(&fake, "/wake_up?tags=weights").await;
    assert_eq!(part, json!({"status": "sleeping", "tags": ["weights"]}));
    assert!(asleep().await);
    assert_eq!(tell(&fake, "/wake_up").await, json!({"status": "awake", "tags": null}));
    assert!(!asleep().await && !is_paused(&fake).await);
}

#[tokio::test]
async fn there_is_no_control_outside_development() {
    let fake = FakeVllm::start(FakeConfig { dev_mode: false, ..FakeConfig::default() }).await;
    for path in
        ["/pause", "/resume", "/abort_requests", "/update_weights", "/sleep", "/collective_rpc", "/reset_prefix_cache"]
    {
        let (status, reply) = post(&fake, path, &json!({})).await;
        assert_eq!((status.as_u16(), reply), (404, json!({"detail": "Not Found"})), "{path}");
    }
    for path in ["/is_paused", "/weight_info", "/is_sleeping"] {
        assert_eq!(get(&fake, path).await.1, r#"{"detail":"Not Found"}"#, "{path}");
    }
}
