//! The faults of servers, in front of a real vLLM of the row's own.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::census::Census;
use super::fetch::fetch;
use super::load::Answer;
use super::row::{Kind, Row, Seen, Tally};
use super::scene::until;
use super::server::{complete_directly, ids, neural_flags, next_version};
use super::support::harness::{Harness, client};
use super::trainer::events_of;
use super::vllm::{Server, free_port};

const CLIENTS: usize = 4;
/// Tokens of rollouts that are under way for long.
const LONG: usize = 600;
const SHORT: usize = 24;
const PRESET: &str = "float32";

pub const ROWS: &[Row] = &[
    Row {
        name: "vllm_killed",
        kind: Kind::Real,
        fault: "vLLM: `kill -9` under 4 rollouts",
        must: "a 502, or one as a stream's last event; vLLM's own tokens once it is back",
        run: || Box::pin(killed(false)),
    },
    Row {
        name: "vllm_other_weights",
        kind: Kind::Real,
        fault: "vLLM: `kill -9` under 4 rollouts, and a restart with other weights under the same name",
        must: "a 502, or one as a stream's last event; then vLLM's own tokens under the new weights",
        run: || Box::pin(killed(true)),
    },
    Row {
        name: "vllm_stopped",
        kind: Kind::Real,
        fault: "vLLM: SIGSTOP under 4 rollouts, SIGCONT once `/health` says 503",
        must: "nothing but the wait: vLLM's own tokens",
        run: || Box::pin(stopped()),
    },
];

/// A vLLM, and a sidecar in this process.
struct Scene {
    server: Option<Server>,
    port: u16,
    sidecar: Harness,
    before: Census,
    most: Census,
}

fn request(number: usize, tokens: usize) -> Value {
    let prompt = format!("<|im_start|>user\nCount from {number} to 500.<|im_end|>\n<|im_start|>assistant\n");
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "ignore_eos": true, "return_token_ids": true})
}

async fn start(port: u16, model: Option<String>) -> Server {
    tokio::task::spawn_blocking(move || Server::start(PRESET, port, model.as_deref())).await.unwrap()
}

impl Scene {
    async fn new() -> Self {
        let port = free_port();
        let server = start(port, None).await;
        let flags = neural_flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let sidecar = Harness::start(&server.url, &flags).await;
        let mut scene =
            Self { server: Some(server), port, sidecar, before: Census::default(), most: Census::default() };
        scene.answers(SHORT, None).await;
        // Connections to the server that nobody uses are closed after some seconds.
        let (mut before, started) = (scene.census(), Instant::now());
        until("idle connections close", async || {
            before = before.least(scene.census());
            started.elapsed() > Duration::from_secs(8)
        })
        .await;
        scene.before = before;
        scene
    }

    fn census(&self) -> Census {
        Census::of(&self.sidecar.sidecar.metrics().encode(), "self")
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// What there is now.
    async fn now(&self, server: &Server) -> Census {
        let (_, page) = fetch(&server.url, "/metrics").await.unwrap_or_default();
        let of_name = |line: &&str| line.starts_with("vllm:num_requests_running");
        let upstream =
            page.lines().filter(of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        Census { upstream: upstream.sum::<f64>() as u64, ..self.census() }
    }

    /// What there is once all rollouts are under way and the server has worked for them. That it works at the moment it need not
    /// tell: it counts what still runs after a step, and a verification takes one.
    async fn busy(&self, server: &Server) -> Census {
        let steps = || self.sidecar.metric("sidedraft_steps_total", "");
        let (before, mut now) = (steps(), Census::default());
        until("rollouts are under way", async || {
            now = self.now(server).await;
            now.rollouts >= CLIENTS as u64 && steps() >= before + CLIENTS as f64
        })
        .await;
        now
    }

    /// What clients get who want so many tokens, one half of them streamed. Where it is known what is right, it is that.
    async fn answers(&self, tokens: usize, right: Option<&[Vec<u32>]>) -> Vec<Answer> {
        let http = client();
        join_all((0..CLIENTS).map(|number| {
            let (http, url) = (http.clone(), format!("{}/v1/completions", self.sidecar.url));
            async move {
                let mut body = request(number, tokens);
                body["stream"] = json!(number % 2 == 1);
                let reply = http.post(url).json(&body).send().await.unwrap();
                let (status, text) = (reply.status().as_u16(), reply.text().await.unwrap());
                answer(status, &text, tokens, right.map(|right| &right[number][..]))
            }
        }))
        .await
    }

    /// What the server itself answers to the same.
    async fn directly(&self, tokens: usize) -> Vec<Vec<u32>> {
        let mut answers = Vec::new();
        for number in 0..CLIENTS {
            let reply = complete_directly(&self.server().url, &request(number, tokens)).await;
            answers.push(ids(&reply["choices"][0]));
        }
        answers
    }

    async fn end(mut self, tally: Tally) -> Seen {
        until("the server is idle", async || self.census().rollouts == 0).await;
        drop(self.server.take());
        let mut left = self.census().above(self.before);
        let started = Instant::now();
        while left != Census::default() && started.elapsed() < Duration::from_secs(30) {
            tokio::task::yield_now().await;
            left = self.census().above(self.before);
        }
        let most = self.most.above(self.before);
        assert_eq!(left, Census::default(), "left over of {most}");
        Seen { clients: tally.to_string(), most, left }
    }
}

fn answer(status: u16, text: &str, tokens: usize, right: Option<&[u32]>) -> Answer {
    if status != 200 {
        let error: Value = serde_json::from_str(text).unwrap();
        assert_eq!(error["error"]["code"], status);
        return Answer::Error(status);
    }
    let mut events = events_of(text);
    if let Some(error) = events.pop_if(|event| event.get("error").is_some()) {
        return Answer::ErrorEvent(u16::try_from(error["error"]["code"].as_u64().unwrap()).unwrap());
    }
    let got: Vec<u32> = events.iter().flat_map(|event| ids(&event["choices"][0])).collect();
    assert_eq!(got.len(), tokens);
    if let Some(right) = right {
        assert_eq!(got, right);
    }
    Answer::Right
}

async fn killed(retrained: bool) -> Seen {
    let mut scene = Scene::new().await;
    let mut tally = Tally::default();
    tally.step("under it");
    let server = scene.server.take().unwrap();
    let (answers, most) = tokio::join!(scene.answers(LONG, None), async {
        let most = scene.busy(&server).await;
        server.kill();
        most
    });
    scene.most = most;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Error(502) | Answer::ErrorEvent(502))), "{answers:?}");
    tally.add_all(answers);
    drop(server);
    let next: Option<TempDir> = if retrained { Some(next_version()) } else { None };
    let folder = next.as_ref().map(|folder| folder.path().to_str().unwrap().to_owned());
    scene.server = Some(start(scene.port, folder).await);
    scene.sidecar.sidecar.ready().await;
    let right = scene.directly(SHORT).await;
    tally.step("after it");
    let speculated = scene.sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"");
    let answers = scene.answers(SHORT, Some(&right)).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    assert!(scene.sidecar.metric("sidedraft_requests_total", "outcome=\"speculated\"") > speculated + 3.5);
    tally.add_all(answers);
    scene.end(tally).await
}

async fn stopped() -> Seen {
    let mut scene = Scene::new().await;
    let mut tally = Tally::default();
    let right = scene.directly(96).await;
    let (answers, most) = tokio::join!(scene.answers(96, Some(&right)), async {
        let most = scene.busy(scene.server()).await;
        scene.server().signal("STOP");
        let (health, _) = fetch(&scene.sidecar.url, "/health").await.unwrap();
        scene.server().signal("CONT");
        assert_eq!(health, 503);
        most
    });
    scene.most = most;
    assert!(answers.iter().all(|answer| *answer == Answer::Right), "{answers:?}");
    tally.add_all(answers);
    scene.end(tally).await
}
