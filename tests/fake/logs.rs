//! Log lines: as JSON each is an object, and what is said of a request bears its name.

use http::StatusCode;
use serde_json::{Value, json};

use super::replies::CHAT;
use super::rig::{COMPLETIONS, GENERATE, endless};
use super::served::Served;
use super::support::fake_vllm::{FakeConfig, FakeVllm};

/// The lines of a log that say `message`.
fn saying<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["fields"]["message"] == message).collect()
}

#[tokio::test]
async fn what_is_said_of_a_request_bears_its_name() {
    // Also where only warnings are logged.
    for level in ["warn", "info", "debug"] {
        let fake = FakeVllm::start(FakeConfig { language: endless(), ..FakeConfig::default() }).await;
        let flags =
            ["--log-format", "json", "--log", level, "--speculate", "always", "--ngram-min", "1", "--retries", "0"];
        let served = Served::start(&fake, &flags, &[]).await;
        let post = |path: &str, name: &str, body: Value| {
            let request = served.http.post(format!("{}{path}", served.url)).header("x-request-id", name);
            let request = request.json(&body).send();
            async { request.await.unwrap().status() }
        };
        let prompt = [5, 6, 7, 5, 6, 7, 5, 6, 7];
        let body = json!({"prompt": prompt, "temperature": 0, "max_tokens": 60});
        // A verification that the server refuses.
        fake.fail_next(GENERATE, 1, StatusCode::BAD_REQUEST);
        assert_eq!(post(COMPLETIONS, "refused", body.clone()).await, StatusCode::OK);
        // A rollout that fails, and a request that cannot be passed on.
        fake.fail_next(COMPLETIONS, 1, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(post(COMPLETIONS, "failed", body).await, StatusCode::INTERNAL_SERVER_ERROR);
        fake.disconnect_next("chat", 1);
        let chat = json!({"messages": [{"role": "user", "content": "a"}], "beam": 1});
        assert_eq!(post(CHAT, "passed", chat).await, StatusCode::BAD_GATEWAY);

        let log = served.stop().await;
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let all =
            |line: &&Value| line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string();
        assert!(lines.iter().all(|line| all(&line)), "{log}");
        let [refused] = saying(&lines, "verification refused, decoding plainly")[..] else { panic!("{log}") };
        let within = refused["spans"].as_array().unwrap();
        assert!(within.iter().any(|span| span["request_id"] == "cmpl-refused-0" && span["sample"] == 0), "{refused}");
        let [failed] = saying(&lines, "a request fails")[..] else { panic!("{log}") };
        assert_eq!(failed["fields"]["request_id"], "cmpl-failed-0");
        let [passed] = saying(&lines, "forwarding failed")[..] else { panic!("{log}") };
        assert_eq!(passed["fields"]["request_id"], "passed");
        assert_eq!(saying(&lines, "listening").len(), usize::from(level != "warn"));
    }
}
