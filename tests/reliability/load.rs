//! Clients of every endpoint, and what became of each.

use std::fmt;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::Value;

use super::support::fake_vllm::LanguageModel;
use super::support::harness::client;
use super::trainer::{Choice, ENDPOINTS, events_of, request, streamed};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// All tokens, and each the one that the server's model likes best.
    Right,
    /// An error in OpenAI's shape.
    Error(u16),
    /// A stream that ended in such an error and `[DONE]`, the tokens before it right.
    ErrorEvent(u16),
    /// No answer in order.
    Broken,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("right answer"),
            Self::Error(status) => write!(f, "{status}"),
            Self::ErrorEvent(status) => write!(f, "{status} as the last event"),
            Self::Broken => f.write_str("broken connection"),
        }
    }
}

/// The status that an error in OpenAI's shape names.
fn status_of(error: &Value) -> u16 {
    let details = &error["error"];
    assert!(details["message"].is_string() && details["type"].is_string(), "not an error of OpenAI's: {error}");
    u16::try_from(details["code"].as_u64().unwrap()).unwrap()
}

/// Asserts that `choice` is what one of `languages` likes best, token by token; the last may be missing.
fn assert_right(choice: &Choice, languages: &[(&str, LanguageModel)]) {
    let languages: Vec<(&str, &LanguageModel)> = languages.iter().map(|(label, language)| (*label, language)).collect();
    choice.assert_greedy(&languages);
}

/// Requests for greedy tokens, one of each endpoint after the other, whole and streamed by turns.
#[derive(Clone)]
pub struct Load {
    pub url: String,
    pub tokens: usize,
    /// What may have computed a token.
    pub languages: Vec<(&'static str, LanguageModel)>,
}

impl Load {
    /// What the `number`th request is about.
    pub fn request(&self, number: usize) -> (String, Value) {
        let endpoint = ENDPOINTS[number % ENDPOINTS.len()];
        let stream = number / ENDPOINTS.len() % 2 == 1;
        let body = if stream { streamed(endpoint, 0.0, self.tokens) } else { request(endpoint, 0.0, self.tokens) };
        (format!("{}{endpoint}", self.url), body)
    }

    /// What becomes of the `number`th request.
    pub async fn one(&self, http: &reqwest::Client, number: usize) -> Answer {
        let (url, body) = self.request(number);
        let Ok(reply) = http.post(url).json(&body).send().await else { return Answer::Broken };
        let status = reply.status().as_u16();
        let Ok(text) = reply.text().await else { return Answer::Broken };
        self.judge(status, &text)
    }

    fn judge(&self, status: u16, text: &str) -> Answer {
        if status != 200 {
            let error: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}"));
            assert_eq!(status_of(&error), status, "{text}");
            return Answer::Error(status);
        }
        let is_stream = text.starts_with("data: ");
        if is_stream && !text.ends_with("data: [DONE]\n\n") {
            return Answer::Broken;
        }
        let mut events = events_of(text);
        let error = events.pop_if(|event| event.get("error").is_some());
        let choice = Choice::of(&events, 0);
        assert_right(&choice, &self.languages);
        match error {
            Some(error) => Answer::ErrorEvent(status_of(&error)),
            None => {
                assert_eq!((choice.ids.len(), choice.finish.as_deref()), (self.tokens, Some("length")), "{text}");
                Answer::Right
            }
        }
    }

    /// What becomes of `count` requests at once, over connections of their own.
    pub async fn many(&self, count: usize) -> Vec<Answer> {
        let http = client();
        join_all((0..count).map(|number| self.one(&http, number))).await
    }

    /// A stream whose reader leaves after `events`.
    pub async fn vanish(&self, http: &reqwest::Client, number: usize, events: usize) {
        let endpoint = ENDPOINTS[number % ENDPOINTS.len()];
        let body = streamed(endpoint, 0.0, self.tokens);
        let sending = http.post(format!("{}{endpoint}", self.url)).json(&body).send();
        if events == 0 {
            let soon = async {
                for _ in 0..number % 16 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                _ = sending => {}
                () = soon => {}
            }
            return;
        }
        let Ok(reply) = sending.await else { return };
        let mut stream = reply.bytes_stream();
        let mut text = String::new();
        while let Some(Ok(piece)) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&piece));
            if text.matches("\n\n").count() >= events {
                return;
            }
        }
    }
}
