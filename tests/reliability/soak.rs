//! Hours in minutes: mixed load with clients that vanish, weights that change and a server that stumbles, while the memory,
//! files and tasks of the sidecar's process are watched.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use super::census::Census;
use super::rig::{COMPLETIONS, GENERATE};
use super::scene::{Plan, Scene};
use super::support::fake_vllm::FakeConfig;
use super::support::harness::client;
use super::trainer::{ENDPOINTS, request, streamed};

/// Everything that keeps something, each with so little room that it is full before the measurement begins: what may be kept
/// would look like a leak while it is being filled.
const FLAGS: &str =
    "--max-body-bytes 100000 --read-timeout 5 --draft-cache-mib 1 --suffix --replay --history-bytes 1000000";
/// Requests of a round, all at once.
const CLIENTS: usize = 48;
/// Most growth of resident memory, by the line that fits the samples best.
const MOST_BYTES_A_MINUTE: f64 = 512.0 * 1024.0;
/// Of what was measured, the beginning, during which caches fill.
const WARM_UP: f64 = 0.25;

struct Sample {
    seconds: f64,
    memory: u64,
    idle: Census,
}

/// Loads a sidecar for so many seconds; an error if it grew.
pub fn soak(seconds: u64) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load_for(Duration::from_secs(seconds)))
}

async fn load_for(duration: Duration) -> ExitCode {
    let plan = Plan::of(FakeConfig::default()).command(&[], &[]).flags(FLAGS);
    let mut scene = plan.start_warm().await;
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut requests = 0;
    let mut round = 0;
    while started.elapsed() < duration {
        requests += one_round(&mut scene, round).await;
        round += 1;
        let process = scene.process();
        samples.push(Sample {
            seconds: started.elapsed().as_secs_f64(),
            memory: process.memory(),
            idle: process.census().await,
        });
    }
    report(&samples, requests, duration)
}

/// One of each kind of client, and every few rounds something that happens to the server; returns how many asked.
async fn one_round(scene: &mut Scene, round: usize) -> usize {
    let http = client();
    let url = scene.url().to_owned();
    let post = async |path: &str, body: &Value| {
        // What is too long, or what a server that has gone was working on, may break off.
        if let Ok(reply) = http.post(format!("{url}{path}")).json(body).send().await {
            let _ = reply.bytes().await;
        }
    };
    match round % 10 {
        3 => scene.fake().fail_next(GENERATE, 20, StatusCode::SERVICE_UNAVAILABLE),
        5 => scene.fake().disconnect_next(COMPLETIONS, 10),
        7 => {
            // Labels come again, as they do where a trainer goes back; old rollouts are proposals then.
            let weights = json!({"update_info": {"weights": round / 10 % 7}});
            for (path, body) in [
                ("/pause?mode=keep", &json!({})),
                ("/update_weights", &weights),
                ("/update_weight_version", &json!({"new_version": (round / 10).to_string()})),
                ("/reset_prefix_cache", &json!({})),
                ("/resume", &json!({})),
            ] {
                post(path, body).await;
            }
        }
        9 => {
            scene.server.down().await;
            post(COMPLETIONS, &request(COMPLETIONS, 0.0, 4)).await;
            scene.server.up().await;
            scene.ready().await;
        }
        _ => {}
    }
    let load = scene.load(24);
    let (http, post, load) = (&http, &post, &load);
    let one = |number: usize| async move {
        let endpoint = ENDPOINTS[number % ENDPOINTS.len()];
        match number % 8 {
            0 => load.vanish(http, number, number % 5).await,
            1 => post("/tokenize", &json!({"prompt": "a b c", "add_special_tokens": false})).await,
            2 => post(endpoint, &json!({"prompt": "x".repeat(100_001)})).await,
            3 => {
                let mut group = request(COMPLETIONS, 1.0, 24);
                // A prompt of its own for each, some of which come again.
                group["prompt"] = json!([5, 6, (round + number) % 50]);
                group["n"] = json!(4);
                post(COMPLETIONS, &group).await;
            }
            4 => post(endpoint, &json!({"nonsense": number})).await,
            5 => post(endpoint, &streamed(endpoint, 1.0, 24)).await,
            _ => post(endpoint, &request(endpoint, 1.0, 24)).await,
        }
    };
    join_all((0..CLIENTS).map(one)).await;
    scene.fake().clear_faults();
    CLIENTS
}

/// The slope of the line that fits best, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    covariance / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

fn report(samples: &[Sample], requests: usize, duration: Duration) -> ExitCode {
    let from = duration.as_secs_f64() * WARM_UP;
    let kept: Vec<&Sample> = samples.iter().filter(|sample| sample.seconds >= from).collect();
    assert!(kept.len() > 10, "{} samples are too few", kept.len());
    let per_minute = |of: fn(&Sample) -> f64| {
        let points: Vec<(f64, f64)> = kept.iter().map(|sample| (sample.seconds, of(sample))).collect();
        60.0 * slope(&points)
    };
    let memory = per_minute(|sample| sample.memory as f64);
    let range = |of: fn(&Census) -> u64| {
        let values = || kept.iter().map(|sample| of(&sample.idle));
        (values().min().unwrap(), values().max().unwrap())
    };
    let files = per_minute(|sample| sample.idle.files as f64);
    let tasks = per_minute(|sample| sample.idle.tasks as f64);
    let megabytes = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    let (first, last) = (kept.first().unwrap(), kept.last().unwrap());
    println!("{requests} requests in {:.0} s, {} samples after the first {from:.0} s", last.seconds, kept.len());
    println!(
        "resident memory: {:.1} MiB at the start, {:.1} MiB after {from:.0} s, {:.1} MiB at the end",
        megabytes(samples[0].memory),
        megabytes(first.memory),
        megabytes(last.memory)
    );
    println!("slope: {:+.1} KiB a minute (at most {:.0})", memory / 1024.0, MOST_BYTES_A_MINUTE / 1024.0);
    println!("open files between rounds: {:?}, {files:+.2} a minute", range(|census| census.files));
    println!("tasks between rounds: {:?}, {tasks:+.2} a minute", range(|census| census.tasks));
    println!("rollouts and draft slots at the end: {} and {}", last.idle.rollouts, last.idle.slots);
    // Each round ends with connections that close in their own time, so counts move, but must not grow.
    let flat = memory < MOST_BYTES_A_MINUTE && files < 1.0 && tasks < 1.0;
    if flat {
        ExitCode::SUCCESS
    } else {
        eprintln!("it grows");
        ExitCode::FAILURE
    }
}
