//! A server with a cost model takes the time that the model's arithmetic says, in virtual time to the microsecond.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::support::fake_vllm::{CostModel, Costs, FakeConfig, FakeVllm, LanguageModel};
use super::support::timeline::{ROUNDS, Timeline};
use super::{COMPLETIONS, GENERATE, get, ids};

/// A server of the profile, and a client whose requests time out after two seconds.
struct Timed {
    fake: FakeVllm,
    timeline: Timeline,
    http: reqwest::Client,
}

impl Timed {
    async fn start() -> Self {
        let timeline = Timeline::start();
        let language = LanguageModel { eos_bias: -30.0, ..LanguageModel::default() };
        let costs = Some(Costs { model: CostModel::h100_8b(), timeline: timeline.clone() });
        let fake = FakeVllm::start(FakeConfig { language, costs, ..FakeConfig::default() }).await;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build().unwrap();
        Self { fake, timeline, http }
    }

    /// The reply, and the microseconds it took.
    async fn ask(&self, path: &str, body: &Value) -> (Value, u128) {
        let start = Instant::now();
        let reply = self.http.post(self.fake.url() + path).json(body).send().await.unwrap();
        assert!(reply.status().is_success());
        let reply = reply.json().await.unwrap();
        (reply, start.elapsed().as_micros())
    }

    async fn micros(&self, body: &Value) -> u128 {
        self.ask(COMPLETIONS, body).await.1
    }
}

fn plain(prompt: &[u32], tokens: usize) -> Value {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 1, "return_token_ids": true, "logprobs": 0})
}

const MODEL: fn() -> CostModel = CostModel::h100_8b;

#[tokio::test(start_paused = true)]
async fn a_rollout_alone_takes_its_closed_form() {
    let timed = Timed::start().await;
    for (salt, tokens) in [(1, 1), (2, 2), (3, 200)] {
        assert_eq!(timed.micros(&plain(&ids(1024, salt), tokens)).await, MODEL().alone(1024, tokens).as_micros());
    }
    // The second time its prompt is cached, but for the last block.
    assert_eq!(timed.micros(&plain(&ids(1024, 3), 10)).await, MODEL().alone(16, 10).as_micros());
    assert!(timed.timeline.deepest() < ROUNDS / 2, "{}", timed.timeline.deepest());
}

#[tokio::test(start_paused = true)]
async fn a_verification_computes_what_the_cache_lacks_and_costs_one_step() {
    let timed = Timed::start().await;
    let prompt = ids(1000, 1);
    let (reply, _) = timed.ask(COMPLETIONS, &plain(&prompt, 10)).await;
    let output: Vec<u32> = serde_json::from_value(reply["choices"][0]["token_ids"].clone()).unwrap();
    let drafted = [&prompt[..], &output, &[1, 2, 3, 4]].concat();
    let params = json!({"prompt_logprobs": 3, "max_tokens": 1, "skip_reading_prefix_cache": false});
    let (reply, micros) = timed.ask(GENERATE, &json!({"token_ids": drafted, "sampling_params": params})).await;
    // 1000 tokens of prompt and 9 of output were computed: 63 blocks, 1008 tokens.
    assert_eq!(reply["usage"]["prompt_tokens_details"]["cached_tokens"], 1008);
    assert_eq!(micros, MODEL().alone(1014 - 1008, 1).as_micros());
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_instant_share_steps_and_queue_for_the_api_server() {
    let timed = Timed::start().await;
    let prompts: Vec<Vec<u32>> = (0..8).map(|salt| ids(1, salt)).collect();
    let all = join_all(prompts.iter().map(|prompt| plain(prompt, 100)).map(|body| {
        let timed = &timed;
        async move { timed.micros(&body).await }
    }))
    .await;
    // Four are read at once and begin; the other four are read during their first step and join the second.
    let (step4, step8) = (6_320, 6_440);
    let first = 1_200 + step4 + 99 * step8;
    let second = 1_200 + step4 + 99 * step8 + step4;
    assert_eq!(all, [[first; 4], [second; 4]].concat());
}

#[tokio::test(start_paused = true)]
async fn siblings_are_sequences_of_one_request_and_share_its_prompt() {
    let timed = Timed::start().await;
    let mut body = plain(&ids(64, 1), 5);
    body["n"] = json!(4);
    // The first computes 64 tokens; each sibling finds all but the last block.
    let first = 6_200 + 4 * 30 + 40 * (63 + 3 * 15);
    assert_eq!(timed.micros(&body).await, 1_200 + first + 4 * (6_200 + 4 * 30));
    let prompts: Vec<Vec<u32>> = (1..4).map(|len| ids(20 * len, 10 + len)).collect();
    let body = json!({"prompt": prompts, "max_tokens": 1});
    assert_eq!(timed.micros(&body).await, 1_200 + 6_200 + 3 * 30 + 40 * (19 + 39 + 59));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_a_stream_costs_the_api_server_and_not_the_engine() {
    let timed = Timed::start().await;
    let mut body = plain(&ids(1, 1), 20);
    body["stream"] = json!(true);
    let start = Instant::now();
    let reply = timed.http.post(timed.fake.url() + COMPLETIONS).json(&body).send().await.unwrap();
    let mut events = reply.bytes_stream();
    let mut times = Vec::new();
    while let Some(piece) = events.next().await {
        let micros = start.elapsed().as_micros();
        times.extend(piece.unwrap().windows(2).filter(|pair| pair == b"\n\n").map(|_| micros));
    }
    let expected: Vec<u128> = (1..=20).map(|step| 1_200 + step * 6_230 + 50).collect();
    assert_eq!(times[..20], expected, "then comes the end of the stream");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_client_drops_leaves_the_batch() {
    let timed = Timed::start().await;
    let dropped = plain(&ids(1, 1), 1000);
    let watched = timed.micros(&dropped);
    let start = Instant::now();
    let until = start + Duration::from_micros(1_200 + 10 * 6_260);
    let (kept_start, kept_body) = (start, plain(&ids(1, 2), 20));
    let kept = timed.micros(&kept_body);
    let dropping = async { tokio::time::timeout_at(until, watched).await.is_err() };
    let (gone, kept) = tokio::join!(dropping, kept);
    assert!(gone);
    timed.fake.wait_for_aborts(1).await;
    // Tokio's timer is up to a millisecond late, which is in the eleventh step.
    assert_eq!(kept, 1_200 + 11 * 6_260 + 9 * 6_230);
    assert_eq!(kept_start.elapsed().as_micros(), kept);
    timed.timeline.pass(Duration::from_micros(1)).await;
    assert_eq!((timed.fake.load().running, timed.fake.load().waiting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_gauges_count_sequences_that_run_and_that_wait() {
    let timeline = Timeline::start();
    let model = CostModel { max_sequences: 3, ..CostModel::h100_8b() };
    let costs = Some(Costs { model, timeline: timeline.clone() });
    let fake = FakeVllm::start(FakeConfig { costs, ..FakeConfig::default() }).await;
    let gauges = |page: String| {
        let value = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
            assert!(line.contains("engine=\"0\"") && line.contains("model_name=\"fake-model\""));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize
        };
        (value("vllm:num_requests_running"), value("vllm:num_requests_waiting"))
    };
    let http = reqwest::Client::new();
    let body = json!({"prompt": [1, 2], "n": 5, "max_tokens": 10, "ignore_eos": true});
    let request = http.post(fake.url() + COMPLETIONS).json(&body).send();
    let looking = async {
        timeline.pass(Duration::from_millis(20)).await;
        gauges(get(&fake, "/metrics").await.1)
    };
    let (_, during) = tokio::join!(request, looking);
    assert_eq!(during, (3, 2));
    timeline.pass(Duration::from_micros(1)).await;
    assert_eq!(gauges(get(&fake, "/metrics").await.1), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_the_steps_and_what_it_keeps_goes_on() {
    let timed = Timed::start().await;
    let body = plain(&ids(1, 1), 10);
    let pausing = async {
        timed.timeline.pass(Duration::from_micros(1_200 + 3 * 6_230 + 1_000)).await;
        timed.ask("/pause?mode=keep&clear_cache=false", &Value::Null).await;
        let steps = timed.fake.load().steps;
        timed.timeline.pass(Duration::from_secs(1)).await;
        assert_eq!(timed.fake.load().steps, steps);
        timed.ask("/resume", &Value::Null).await;
    };
    let (micros, ()) = tokio::join!(timed.micros(&body), pausing);
    // The pause came a millisecond into the fourth step, whose token waited; the others follow one another.
    assert_eq!(micros, 1_200 + 3 * 6_230 + 1_000 + 1_000_000 + 6 * 6_230);
}

#[tokio::test]
async fn in_real_time_a_rollout_takes_about_its_closed_form() {
    let timed = Timed::start().await;
    let micros = timed.micros(&plain(&ids(1, 1), 30)).await;
    let expected = MODEL().alone(1, 30).as_micros();
    assert!(micros >= expected && micros < expected * 3, "{micros} for {expected}");
}
