//! Whatever a client says of itself and of its session is on every call that is made for its request, and the request has
//! the name that the client gave it.

use http::StatusCode;
use serde_json::{Value, json};

use super::drafters::often_right;
use super::exactness::{assert_exact, expecting, small};
use super::replies::{CHAT, ROUTES, asking, same_reply, timeless, with};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, STRATEGIES, answer, endless};
use super::support::fake_vllm::FakeConfig;

const KEY: &str = "the-key";

/// A server that asks for a key, and has an adapter called `tuned`.
async fn rig(strategy: &str) -> Rig {
    let config = FakeConfig { language: endless(), api_key: Some(KEY.to_owned()), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config)
        .strategy(strategy)
        .drafters(drafters)
        .flags(&format!("--upstream-api-key {KEY}"))
        .start()
        .await;
    let adapter = json!({"lora_name": "tuned", "lora_path": "3"});
    let load = rig.sidecar.http.post(rig.fake.url() + "/v1/load_lora_adapter").bearer_auth(KEY).json(&adapter);
    assert_eq!(answer(load).await.0, StatusCode::OK);
    rig.fake.forget_requests();
    rig
}

/// Asks the server at `url` with a key, a session and a header of the client's own.
fn ask(rig: &Rig, url: &str, route: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = rig.sidecar.http.post(format!("{url}{route}")).json(body).bearer_auth(KEY);
    request.header("x-session-id", "by-header").header("x-tenant", "t")
}

/// A request of an adapter with everything that concerns all of its calls.
fn of_session(route: &str) -> Value {
    let mut body = asking(route, &json!({"max_tokens": 20}));
    if route == COMPLETIONS {
        body["prompt"] = json!("the words of it");
    }
    let around = json!({"model": "tuned", "cache_salt": "grains", "priority": -4, "request_id": "mine"});
    with(body, &around)
}

#[tokio::test]
async fn every_call_bears_the_clients_headers_and_session() {
    for strategy in STRATEGIES {
        let rig = rig(strategy).await;
        for route in ROUTES {
            for stream in [false, true] {
                let body = with(of_session(route), &json!({ "stream": stream }));
                let (status, reply) = answer(ask(&rig, &rig.sidecar.url, route, &body)).await;
                assert_eq!(status, StatusCode::OK, "{reply:?}");
                let calls = rig.fake.requests();
                assert!(calls.len() > 3, "{strategy} {route}: it speculated");
                for call in calls {
                    let said = |name: &str| call.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
                    assert_eq!(said("authorization").as_deref(), Some("Bearer the-key"), "{route}: {}", call.path);
                    assert_eq!(said("x-session-id").as_deref(), Some("by-header"), "{route}: {}", call.path);
                    assert_eq!(said("x-tenant").as_deref(), Some("t"), "{route}: {}", call.path);
                    assert_eq!(said("x-request-id"), None, "the calls of a rollout must not share a name");
                    let sent = call.json();
                    assert_eq!(sent["model"], "tuned", "{route}: {}", call.path);
                    if [COMPLETIONS, GENERATE].contains(&call.path.as_str()) {
                        assert_eq!(
                            (&sent["cache_salt"], &sent["priority"]),
                            (&json!("grains"), &json!(-4)),
                            "{}",
                            call.path
                        );
                        assert!(sent.get("request_id").is_none(), "{}", call.path);
                    }
                }
                rig.fake.forget_requests();
            }
        }
        assert!(rig.outcome("forwarded") < 0.5 && rig.accepted() > 0.0);
    }
}

/// The generate route has no field for it: there the header says it (`SESSION_ID_HEADER` in
/// `vllm/entrypoints/generate/base/serving.py`). The body's own wins over the client's header.
#[tokio::test]
async fn a_session_named_in_the_body_is_on_every_call() {
    for strategy in STRATEGIES {
        let rig = rig(strategy).await;
        for route in [COMPLETIONS, CHAT] {
            let body = with(of_session(route), &json!({"session_id": "by-body"}));
            let (status, _) = answer(ask(&rig, &rig.sidecar.url, route, &body)).await;
            assert_eq!(status, StatusCode::OK);
            for call in rig.fake.requests() {
                match call.path.as_str() {
                    COMPLETIONS => assert_eq!(call.json()["session_id"], "by-body"),
                    GENERATE => assert_eq!(call.headers["x-session-id"], "by-body", "{strategy} {route}"),
                    _ => {}
                }
            }
            rig.fake.forget_requests();
        }
    }
}

#[tokio::test]
async fn an_adapter_answers_as_the_server_would_have_it() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        rig.direct("/v1/load_lora_adapter", &json!({"lora_name": "tuned", "lora_path": "3"})).await;
        for route in ROUTES {
            let base = same_reply(&rig, route, &asking(route, &json!({}))).await;
            let tuned = same_reply(&rig, route, &of_session(route)).await;
            assert_eq!((&base["model"], &tuned["model"]), (&json!("fake-model"), &json!("tuned")));
            assert_ne!(base["choices"][0]["token_ids"], tuned["choices"][0]["token_ids"]);
        }
    }
}

#[tokio::test]
async fn a_client_without_a_key_is_not_lent_the_sidecars() {
    let rig = rig("auto").await;
    for route in ROUTES {
        for key in [None, Some("another")] {
            let body = asking(route, &json!({}));
            let ask = |url: String| {
                let request = rig.sidecar.http.post(url + route).json(&body);
                answer(match key {
                    Some(key) => request.bearer_auth(key),
                    None => request,
                })
            };
            let direct = ask(rig.fake.url()).await;
            assert_eq!(direct.0, StatusCode::UNAUTHORIZED);
            assert_eq!(ask(rig.sidecar.url.clone()).await, direct, "{route}");
        }
    }
    let lent = |call: &super::support::fake_vllm::Received| {
        call.headers.get("authorization").is_some_and(|value| value.to_str().unwrap().contains(KEY))
    };
    assert!(!rig.fake.requests().iter().any(lent));
}

#[tokio::test]
async fn a_request_has_the_name_that_its_client_gave_it() {
    let rig = Rig::drafting(FakeConfig { language: endless(), ..FakeConfig::default() }).await;
    for (route, field, prefix) in
        [(COMPLETIONS, "id", "cmpl-"), (CHAT, "id", "chatcmpl-"), (GENERATE, "request_id", "generate-tokens-")]
    {
        let body = with(asking(route, &json!({})), &json!({"request_id": "mine"}));
        for (header, name) in [(None, "mine"), (Some("hers"), "hers")] {
            let ask = |url: String| {
                let request = rig.sidecar.http.post(url + route).json(&body);
                answer(match header {
                    Some(header) => request.header("x-request-id", header),
                    None => request,
                })
            };
            rig.fake.reset_prefix_cache();
            let direct = ask(rig.fake.url()).await.1;
            rig.fake.reset_prefix_cache();
            let through = ask(rig.sidecar.url.clone()).await.1;
            assert_eq!(timeless(&through), timeless(&direct));
            let reply: Value = serde_json::from_slice(&through).unwrap();
            assert_eq!(reply[field], format!("{prefix}{name}"), "a header wins");
        }
        let nameless: Value = serde_json::from_slice(&rig.through(route, &asking(route, &json!({}))).await.1).unwrap();
        assert!(nameless[field].as_str().unwrap().strip_prefix(prefix).unwrap().len() >= 16);
    }
}

#[tokio::test]
async fn a_request_can_be_aborted_by_its_name() {
    let rig = Rig::drafting(FakeConfig { language: endless(), ..FakeConfig::default() }).await;
    for (route, name) in [(COMPLETIONS, "cmpl-mine-0"), (CHAT, "chatcmpl-mine"), (GENERATE, "generate-tokens-mine")] {
        let body = with(asking(route, &json!({"max_tokens": 40})), &json!({"request_id": "mine"}));
        let first = rig.fake.hang_next(if route == GENERATE { GENERATE } else { COMPLETIONS });
        let abort = async {
            first.reached().await;
            let verification = rig.fake.hang_next(GENERATE);
            first.release();
            verification.reached().await;
            let (status, _) = rig.through("/abort_requests", &json!({"request_ids": ["another", name]})).await;
            assert_eq!(status, StatusCode::OK);
        };
        let ((status, reply), ()) = tokio::join!(rig.through(route, &body), abort);
        assert_eq!(status, StatusCode::OK);
        let choice = serde_json::from_slice::<Value>(&reply).unwrap()["choices"][0].clone();
        assert_eq!((&choice["finish_reason"], choice["token_ids"].as_array().unwrap().len()), (&json!("abort"), 1));
        rig.fake.wait_until_idle().await;
    }
}

/// Were the seed sent, every request of the same would get the same fifty rollouts.
#[tokio::test]
async fn a_seed_is_ignored_where_the_operator_says_so() {
    let config = small();
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--speculate-seeded").start().await;
    assert_exact(&rig, json!({"temperature": 1, "seed": 5}), expecting(|_| {})).await;
    assert!(rig.accepted() > 0.0 && rig.outcome("forwarded") < 0.5);
    let seeded = |call: &Value| call.get("seed").is_some() || call["sampling_params"].get("seed").is_some();
    assert!(!rig.fake.requests().iter().any(|call| seeded(&call.json())));
}
