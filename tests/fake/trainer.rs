//! What a trainer says to the server while rollouts run, and replies of every endpoint read alike.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::rig::{COMPLETIONS, GENERATE, Rig, answer};
use super::support::fake_vllm::{FakeVllm, Hang, LanguageModel, Received, argmax};

pub const CHAT: &str = "/v1/chat/completions";
pub const ENDPOINTS: [&str; 3] = [COMPLETIONS, CHAT, GENERATE];

/// A request for `max_tokens` tokens with their ids and log-probabilities.
pub fn request(endpoint: &str, temperature: f64, max_tokens: usize) -> Value {
    let mut params = json!({"temperature": temperature, "max_tokens": max_tokens, "logprobs": 1});
    if endpoint == GENERATE {
        return json!({"token_ids": [5, 6, 7], "sampling_params": params, "return_token_ids": true});
    }
    params["return_token_ids"] = json!(true);
    if endpoint == CHAT {
        params["logprobs"] = json!(true);
        params["messages"] = json!([{"role": "user", "content": "a"}]);
    } else {
        params["prompt"] = json!([5, 6, 7]);
    }
    params
}

/// As [`request`], as a stream.
pub fn streamed(endpoint: &str, temperature: f64, max_tokens: usize) -> Value {
    let mut body = request(endpoint, temperature, max_tokens);
    body["stream"] = json!(true);
    body
}

/// The path by which the server is asked to sample for a request to `endpoint`.
pub fn sampling_path(endpoint: &str) -> &'static str {
    if endpoint == GENERATE { GENERATE } else { COMPLETIONS }
}

/// The path by which drafts of a request to `endpoint` are verified.
pub fn verifying_path(endpoint: &str, strategy: &str) -> &'static str {
    match strategy {
        "cached-suffix" => GENERATE,
        "prompt-logprobs" => COMPLETIONS,
        _ => sampling_path(endpoint),
    }
}

/// One choice of a reply, in one piece or as its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    pub prompt: Vec<u32>,
    pub ids: Vec<u32>,
    pub logprobs: Vec<f64>,
    pub finish: Option<String>,
    /// (version, start, end), of the generate route alone.
    pub spans: Vec<(String, usize, usize)>,
}

impl Choice {
    /// Choice `index` of the reply that `events` are; a whole reply is one event.
    pub fn of(events: &[Value], index: usize) -> Self {
        let mut choice = Self::default();
        for event in events {
            let choices = event["choices"].as_array().unwrap();
            for part in choices.iter().filter(|choice| choice["index"] == index) {
                choice.add(event, part);
            }
        }
        choice
    }

    fn add(&mut self, event: &Value, part: &Value) {
        let list = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap_or_default();
        for prompt in [&part["prompt_token_ids"], &event["prompt_token_ids"]] {
            self.prompt.extend(list(prompt));
        }
        self.ids.extend(list(&part["token_ids"]));
        let numbers = part["logprobs"]["token_logprobs"].as_array().into_iter().flatten();
        let content = part["logprobs"]["content"].as_array().into_iter().flatten().map(|entry| &entry["logprob"]);
        self.logprobs.extend(numbers.chain(content).map(|logprob| logprob.as_f64().unwrap()));
        self.finish = self.finish.take().or(part["finish_reason"].as_str().map(str::to_owned));
        let edge = |span: &Value, name: &str| usize::try_from(span[name].as_u64().unwrap()).unwrap();
        let spans = part["weight_versions"].as_array().into_iter().flatten();
        self.spans.extend(
            spans.map(|span| (span["version"].as_str().unwrap().to_owned(), edge(span, "start"), edge(span, "end"))),
        );
    }

    /// Which of `versions` scored each token, by its log-probability: exactly one did.
    pub fn scored_by<'a>(&self, versions: &[(&'a str, &LanguageModel)]) -> Vec<&'a str> {
        assert_eq!(self.ids.len(), self.logprobs.len());
        let mut context = self.prompt.clone();
        let mut labels = Vec::new();
        for (id, logprob) in self.ids.iter().zip(&self.logprobs) {
            let p = |language: &LanguageModel| language.raw(&context)[*id as usize];
            // The server's are of 32 bits.
            let fits = |language: &LanguageModel| (p(language).ln() - logprob).abs() < 2e-7 * (1.0 - logprob);
            let fitting: Vec<&str> = versions.iter().filter(|(_, fit)| fits(fit)).map(|(label, _)| *label).collect();
            assert_eq!(fitting.len(), 1, "token {}: {logprob} fits {fitting:?}", labels.len());
            labels.push(fitting[0]);
            context.push(*id);
        }
        labels
    }

    /// Asserts that the spans say of each token what `labels` do, and follow one another.
    pub fn assert_spans(&self, labels: &[&str]) {
        let mut at = 0;
        for (version, start, end) in &self.spans {
            assert_eq!(*start, at, "{:?}", self.spans);
            assert!(end > start, "{:?}", self.spans);
            assert!(labels[*start..*end].iter().all(|label| label == version), "{:?} but {labels:?}", self.spans);
            at = *end;
        }
        assert_eq!(at, labels.len(), "{:?}", self.spans);
    }

    /// Asserts that each token is the likeliest under the version that scored it.
    pub fn assert_greedy(&self, versions: &[(&str, &LanguageModel)]) {
        let labels = self.scored_by(versions);
        let mut context = self.prompt.clone();
        for (at, id) in self.ids.iter().enumerate() {
            let (_, language) = versions.iter().find(|(label, _)| *label == labels[at]).unwrap();
            assert_eq!(*id as usize, argmax(&language.logits(&context)), "token {at} under {}", labels[at]);
            context.push(*id);
        }
    }
}

/// Asserts that `choice` is the beginning of what a server that nobody disturbs would have said.
pub fn assert_undisturbed(fake: &FakeVllm, choice: &Choice) {
    choice.assert_greedy(&[("default", &fake.language_of("default"))]);
}

/// The events of a reply of `text`, whole or streamed.
pub fn events_of(text: &str) -> Vec<Value> {
    if !text.starts_with("data: ") {
        return vec![serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))];
    }
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    events.filter(|event| *event != "[DONE]").map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// A request to the sidecar under way: the reply's status and text.
pub type Pending = JoinHandle<(StatusCode, String)>;

/// Sends a request to the sidecar.
pub fn send(rig: &Rig, endpoint: &str, body: &Value) -> Pending {
    send_named(rig, endpoint, body, None)
}

/// As [`send`], with a request id in the header.
pub fn send_named(rig: &Rig, endpoint: &str, body: &Value, id: Option<&str>) -> Pending {
    let mut request = rig.sidecar.http.post(format!("{}{endpoint}", rig.sidecar.url)).json(body);
    if let Some(id) = id {
        request = request.header("x-request-id", id);
    }
    tokio::spawn(async move {
        let reply = request.send().await.unwrap();
        (reply.status(), reply.text().await.unwrap())
    })
}

/// The events of a request that succeeds.
pub async fn events(pending: Pending) -> Vec<Value> {
    let (status, text) = pending.await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    events_of(&text)
}

/// The only choice of a request that succeeds.
pub async fn choice(pending: Pending) -> Choice {
    Choice::of(&events(pending).await, 0)
}

/// Sends a control request to the sidecar; returns as soon as the sidecar has it.
pub async fn ask(rig: &Rig, path: &str, body: &Value) -> Pending {
    let seen = || rig.metric("sidedraft_control_requests_total", "");
    let before = seen();
    let pending = send(rig, path, body);
    until(|| seen() > before).await;
    pending
}

/// A control request that succeeds.
pub async fn tell(rig: &Rig, path: &str, body: &Value) -> Bytes {
    let (status, reply) = rig.through(path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {reply:?}");
    reply
}

/// What the server itself answers a trainer.
pub async fn tell_directly(rig: &Rig, path: &str) {
    let (status, reply) = answer(rig.sidecar.http.post(rig.fake.url() + path)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {reply:?}");
}

/// Returns once `holds`, which something under way in this runtime brings about.
pub async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("what is waited for does not come");
}

/// Has a request sent by `start` hang in the last of the calls to `paths`, one after the other.
pub async fn hung_in(rig: &Rig, paths: &[&str], start: impl FnOnce() -> Pending) -> (Pending, Hang) {
    let mut hang = rig.fake.hang_next(paths[0]);
    let pending = start();
    hang.reached().await;
    for path in &paths[1..] {
        let next = rig.fake.hang_next(path);
        hang.release();
        next.reached().await;
        hang = next;
    }
    (pending, hang)
}

/// Whether a request to the server asks it to generate.
pub fn generates(request: &Received) -> bool {
    [COMPLETIONS, GENERATE, CHAT].contains(&request.path.as_str())
}

/// Where the first request to `path` stands among those that the server has had.
pub fn position(fake: &FakeVllm, path: &str) -> Option<usize> {
    fake.requests().iter().position(|request| request.path == path)
}
