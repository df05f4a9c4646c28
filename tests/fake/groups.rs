//! Several choices and several prompts: the server reads each prompt once, and every choice is where it belongs.

use std::pin::pin;

use futures_util::future::{Either, select};
use http::StatusCode;
use serde_json::{Value, json};

use super::compare::same_answer;
use super::drafters::often_right;
use super::replies::{CHAT, ROUTES, asking, same_reply, timeless, with};
use super::rig::{COMPLETIONS, GENERATE, Plan, Rig, STRATEGIES, endless};
use super::support::fake_vllm::{FakeConfig, Frontend};

async fn rig(config: FakeConfig) -> Rig {
    Rig::drafting(FakeConfig { language: endless(), ..config }).await
}

/// A request that samples, but only the likeliest token: several choices of it have one right answer.
fn certain(route: &str, n: usize) -> Value {
    asking(route, &json!({"temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0, "repetition_penalty": 1, "n": n}))
}

fn prompt_of(call: &Value) -> Value {
    if call["token_ids"].is_array() { call["token_ids"].clone() } else { call["prompt"].clone() }
}

/// The calls that asked the server for tokens after exactly `prompt`, by how many outputs each wanted.
fn calls_after(rig: &Rig, prompt: &Value) -> Vec<u64> {
    let calls = rig.fake.requests().into_iter().filter(|call| [COMPLETIONS, GENERATE].contains(&call.path.as_str()));
    let calls = calls.map(|call| call.json()).filter(|call| prompt_of(call) == *prompt);
    calls.map(|call| call["n"].as_u64().or(call["sampling_params"]["n"].as_u64()).unwrap_or(1)).collect()
}

#[tokio::test]
async fn every_choice_is_in_its_place() {
    for strategy in STRATEGIES {
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).strategy(strategy).drafters(drafters).start().await;
        for route in ROUTES {
            let answer = same_reply(&rig, route, &certain(route, 3)).await;
            assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
        }
        for (prompts, n) in [(json!([[1, 2], [3], [4, 5, 6]]), 1), (json!([[1, 2], [3]]), 3), (json!(["the", "ab"]), 2)]
        {
            let body = with(certain(COMPLETIONS, n), &json!({"prompt": prompts, "logprobs": 1}));
            same_reply(&rig, COMPLETIONS, &body).await;
        }
        assert!(rig.accepted() > 0.0);
    }
}

#[tokio::test]
async fn the_prompt_is_read_once_for_all_choices() {
    for route in ROUTES {
        let rig = rig(FakeConfig::default()).await;
        let (status, reply) = rig.through(route, &with(certain(route, 4), &json!({"return_token_ids": true}))).await;
        assert_eq!(status, StatusCode::OK);
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        let prompts = [&reply["prompt_token_ids"], &reply["choices"][0]["prompt_token_ids"]];
        let prompt = prompts.into_iter().find(|prompt| prompt.is_array()).unwrap();
        assert_eq!(calls_after(&rig, prompt), [4], "{route}");
    }
}

#[tokio::test]
async fn each_prompt_of_a_list_is_read_once() {
    let rig = rig(FakeConfig::default()).await;
    let body = with(certain(COMPLETIONS, 3), &json!({"prompt": [[1, 2], [3], [4, 5, 6]]}));
    assert_eq!(rig.complete(&body).await["choices"].as_array().unwrap().len(), 9);
    for prompt in [json!([1, 2]), json!([3]), json!([4, 5, 6])] {
        assert_eq!(calls_after(&rig, &prompt), [3]);
    }
}

/// It takes one output a request, and refuses several; the sidecar asks for them one by one.
#[tokio::test]
async fn the_rust_frontend_reads_a_prompt_for_each_choice() {
    let rig = rig(FakeConfig { frontend: Frontend::Rust, ..FakeConfig::default() }).await;
    let one = rig.complete_directly(&certain(COMPLETIONS, 1)).await["choices"][0].clone();
    rig.fake.forget_requests();
    let reply = rig.complete(&certain(COMPLETIONS, 3)).await;
    for (index, choice) in reply["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(*choice, with(one.clone(), &json!({ "index": index })));
    }
    assert_eq!(calls_after(&rig, &json!([5, 6, 7])), [1, 1, 1]);
}

#[tokio::test]
async fn what_the_cache_served_is_what_the_server_says() {
    let prompt = (0..50).collect::<Vec<u32>>();
    for route in ROUTES {
        let rig = rig(FakeConfig::default()).await;
        for n in [1, 3] {
            let body = match route {
                CHAT => json!({"messages": [{"role": "user", "content": "x".repeat(40)}]}),
                COMPLETIONS => json!({ "prompt": prompt }),
                _ => json!({ "token_ids": prompt }),
            };
            let body = with(with(certain(route, n), &body), &json!({"request_id": "mine"}));
            // Cold, and then with the prompt in the cache.
            rig.fake.reset_prefix_cache();
            let cold = rig.direct(route, &body).await.1;
            let warm = rig.direct(route, &body).await.1;
            rig.fake.reset_prefix_cache();
            assert_eq!(timeless(&rig.through(route, &body).await.1), timeless(&cold));
            assert_eq!(timeless(&rig.through(route, &body).await.1), timeless(&warm));
            let warm: Value = serde_json::from_slice(&warm).unwrap();
            assert_eq!(warm["usage"]["prompt_tokens_details"]["cached_tokens"], 48, "{route}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_first_call_aborts_it_for_all() {
    for route in ROUTES {
        let rig = rig(FakeConfig::default()).await;
        let path = if route == GENERATE { GENERATE } else { COMPLETIONS };
        for stream in [false, true] {
            let aborted = rig.fake.aborted();
            rig.fake.forget_requests();
            let hang = rig.fake.hang_next(path);
            let body = with(certain(route, 4), &json!({ "stream": stream }));
            match select(pin!(rig.through(route, &body)), pin!(hang.reached())).await {
                Either::Left(_) => panic!("the call hangs"),
                Either::Right(_) => {}
            }
            rig.fake.wait_for_aborts(aborted + 1).await;
            rig.fake.wait_until_idle().await;
            assert_eq!(rig.fake.aborted(), aborted + 1);
            assert_eq!(rig.fake.requests_to(path).len(), 1, "nothing else was begun");
            assert!(rig.metric("sidedraft_rollouts_running", "").abs() < 1e-9);
        }
        assert!((rig.outcome("cancelled") - 2.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn an_error_of_the_first_call_reaches_the_client_once() {
    for route in ROUTES {
        let path = if route == GENERATE { GENERATE } else { COMPLETIONS };
        let config = FakeConfig { language: endless(), ..FakeConfig::default() };
        let drafters = often_right(&config.language);
        let rig = Plan::new(config).drafters(drafters).flags("--retries 0").start().await;
        for stream in [false, true] {
            rig.fake.forget_requests();
            rig.fake.fail_next(path, 1, StatusCode::INTERNAL_SERVER_ERROR);
            let (status, body) = rig.through(route, &with(certain(route, 4), &json!({ "stream": stream }))).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(error["error"]["message"], "a fault of the fake", "{route}");
            assert_eq!(rig.fake.requests_to(path).len(), 1);
        }
        assert!((rig.outcome("failed") - 2.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn an_error_for_one_prompt_of_a_list_ends_the_others() {
    let config = FakeConfig { language: endless(), ..FakeConfig::default() };
    let drafters = often_right(&config.language);
    let rig = Plan::new(config).drafters(drafters).flags("--retries 0").start().await;
    rig.fake.fail_next(COMPLETIONS, 1, StatusCode::INTERNAL_SERVER_ERROR);
    let body = with(certain(COMPLETIONS, 2), &json!({"prompt": [[1, 2], [3], [4, 5, 6]]}));
    let (status, _) = rig.through(COMPLETIONS, &body).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    rig.fake.wait_until_idle().await;
    assert!((rig.outcome("failed") - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_refusal_of_the_first_call_is_the_servers_own_for_all_choices() {
    let rig = rig(FakeConfig::default()).await;
    let body = with(certain(COMPLETIONS, 4), &json!({"stop_token_ids": [999]}));
    let (status, direct) = rig.direct(COMPLETIONS, &body).await;
    rig.fake.forget_requests();
    assert_eq!(rig.through(COMPLETIONS, &body).await, (status, direct));
    assert_eq!(rig.fake.requests_to(COMPLETIONS).len(), 2, "tried once, and forwarded");
}

#[tokio::test]
async fn prompts_of_a_list_have_each_their_own_room() {
    let config = FakeConfig { language: endless(), max_model_len: 24, ..FakeConfig::default() };
    let rig = Rig::drafting(config).await;
    let body =
        json!({"prompt": [[1, 2, 3], vec![5; 20]], "temperature": 0, "max_tokens": 12, "return_token_ids": true});
    let answer = same_answer(&rig, &body).await;
    assert_eq!(answer["usage"]["completion_tokens"], 12 + 4);
}
