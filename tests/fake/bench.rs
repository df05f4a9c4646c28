//! `sidedraft bench` between a fake server and a sidecar: what it measures can be recomputed, and what it cannot compare
//! it does not.

use std::path::PathBuf;
use std::process::Output;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::rig::Rig;
use super::support::fake_vllm::{FakeConfig, FakeVllm};

/// A workload of lines in a folder of its own, and the files that a run leaves there.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(lines: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join("lines.jsonl"), text).unwrap();
        Self { folder }
    }

    /// Chats and prompts, one of them for two rollouts.
    fn usual() -> Self {
        Self::new(&[
            json!({"prompt": [5, 6, 7], "group": "a", "n": 2, "max_tokens": 9, "source": "s"}),
            json!({"messages": [{"role": "user", "content": "hi"}], "group": "b", "max_tokens": 7}),
            json!({"prompt": [8, 9], "temperature": 1}),
        ])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, flags: &[&str]) -> Output {
        self.run_as(&[], flags).await
    }

    async fn run_as(&self, subcommand: &[&str], flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidedraft"));
        command.arg("bench").args(subcommand).arg("--workload").arg(self.path("lines.jsonl"));
        command.arg("--json").arg(self.path("report.json")).arg("--html").arg(self.path("page.html")).args(flags);
        command.kill_on_drop(true).output().await.unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Output tokens of a round, from its rollouts.
fn tokens(round: &Value) -> u64 {
    list(&round["rollouts"]).iter().map(|rollout| rollout["tokens"].as_u64().unwrap()).sum()
}

fn speed(round: &Value) -> f64 {
    tokens(round) as f64 / round["seconds"].as_f64().unwrap()
}

fn middle_of_three(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted.len(), 3);
    sorted[1]
}

#[tokio::test]
async fn every_number_can_be_recomputed_from_the_rollouts() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "1,3", "--rounds", "3", "--requests", "5", "--temperatures", "0"];
    let output = bench.run(&[&urls[..], &flags].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "no bar where nobody watches");
    let report = bench.report();
    assert_eq!(report["finished"], true);
    assert_eq!(list(&report["notes"]), &[json!("Keys of the workload that were not used: source.")]);
    let cells = list(&report["cells"]);
    assert_eq!(cells.iter().map(|cell| cell["concurrency"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for cell in cells {
        let (pairs, summary) = (list(&cell["pairs"]), &cell["summary"]);
        let ratios: Vec<f64> = pairs.iter().map(|pair| speed(&pair["proxied"]) / speed(&pair["direct"])).collect();
        assert_eq!(numbers(&summary["comparison"]["speed"]["pairs"]), ratios);
        assert_eq!(summary["comparison"]["speed"]["median"], middle_of_three(&ratios));
        for arm in ["direct", "proxied"] {
            let speeds: Vec<f64> = pairs.iter().map(|pair| speed(&pair[arm])).collect();
            assert_eq!(summary[arm]["tokens_per_second"], middle_of_three(&speeds));
            assert_eq!(summary[arm]["tokens"], pairs.iter().map(|pair| tokens(&pair[arm])).sum::<u64>());
            assert_eq!(summary[arm]["rollouts"], 15);
        }
        let shown = format!("{:.3}", middle_of_three(&ratios));
        assert!(stdout(&output).contains(&shown), "{shown} in {}", stdout(&output));
    }
}

#[tokio::test]
async fn the_page_shows_the_ratio_and_asks_nobody_for_anything() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "1,2", "--rounds", "3", "--requests", "3", "--temperatures", "0,1"];
    let output = bench.run(&[&urls[..], &flags, &["--max-tokens", "6"]].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(bench.path("page.html")).unwrap();
    for cell in list(&bench.report()["cells"]) {
        let median = cell["summary"]["comparison"]["speed"]["median"].as_f64().unwrap();
        assert!(page.contains(&format!(">{median:.2} (")), "{median} in {page}");
    }
    for (figure, count) in [("Ratio of tokens/s", 2), ("Tokens per second", 2), ("Rollout latency, 2 at a time", 2)] {
        assert_eq!(page.matches(&format!("<h3>{figure}")).count(), count, "{figure}");
    }
    for outside in ["http", "src=", "href", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn what_the_sidecar_did_is_what_its_metrics_page_says() {
    let (rig, bench) = (Rig::usual().await, Bench::new(&[json!({"prompt": [5, 6, 7], "max_tokens": 30})]));
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "2", "--rounds", "2", "--requests", "4", "--temperatures", "0", "--warmup", "0"];
    let output = bench.run(&[&urls[..], &flags].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let report = bench.report();
    let speculation = &report["cells"][0]["summary"]["speculation"];
    let (drafts, accepted) = (rig.metric("vllm:spec_decode_num_drafts_total", ""), rig.accepted());
    assert!(accepted > 0.0);
    assert_eq!(speculation["counters"]["drafts"], drafts);
    assert_eq!(speculation["counters"]["accepted_tokens"], accepted);
    assert_eq!(speculation["acceptance_length"], accepted / drafts + 1.0);
    assert!(speculation["time"]["verify"].as_f64().unwrap() > 0.0);
    for pair in list(&report["cells"][0]["pairs"]) {
        assert_eq!(pair["direct"]["counters"], Value::Null);
    }
}

#[tokio::test]
async fn pairs_have_the_same_rollouts_alternate_and_share_no_cache() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "2", "--rounds", "2", "--requests", "3", "--max-tokens", "4"];
    let output = bench.run(&[&urls[..], &flags].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let report = bench.report();
    let pairs = list(&report["cells"][0]["pairs"]);
    let lines = |round: &Value| list(&round["rollouts"]).iter().map(|r| r["line"].clone()).collect::<Vec<_>>();
    assert_eq!(lines(&pairs[0]["direct"]), [1, 1, 2]);
    assert_eq!(lines(&pairs[1]["direct"]), [3, 1, 1]);
    let started = |round: &Value| round["started"].as_f64().unwrap();
    let mut salts = Vec::new();
    for (pair, direct_first) in pairs.iter().zip([true, false]) {
        let (direct, proxied) = (&pair["direct"], &pair["proxied"]);
        assert_eq!(lines(direct), lines(proxied));
        assert_eq!(started(direct) < started(proxied), direct_first);
        salts.extend([direct, proxied].map(|round| round["cache_salt"].as_str().unwrap().to_owned()));
    }
    let asked: Vec<Value> = rig.fake.requests().iter().filter_map(|r| serde_json::from_slice(&r.body).ok()).collect();
    for salt in &salts {
        assert_eq!(salts.iter().filter(|other| *other == salt).count(), 1);
        assert!(asked.iter().any(|body| body["cache_salt"] == **salt), "{salt} never reached the server");
    }
}

#[tokio::test]
async fn all_rollouts_together_are_compared_by_the_last_to_end() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "6", "--rounds", "3", "--together", "--stream", "--temperatures", "1"];
    let output = bench.run(&[&urls[..], &flags, &["--max-tokens", "8", "--logprobs"]].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("makespan"), "{}", stdout(&output));
    let report = bench.report();
    let pairs = list(&report["cells"][0]["pairs"]);
    let seconds = |round: &Value| round["seconds"].as_f64().unwrap();
    let ratios: Vec<f64> = pairs.iter().map(|pair| seconds(&pair["proxied"]) / seconds(&pair["direct"])).collect();
    assert_eq!(report["cells"][0]["summary"]["comparison"]["makespan"]["median"], middle_of_three(&ratios));
    for round in pairs.iter().flat_map(|pair| [&pair["direct"], &pair["proxied"]]) {
        let rollouts = list(&round["rollouts"]);
        assert_eq!(rollouts.len(), 6);
        let end = |rollout: &Value| rollout["started"].as_f64().unwrap() + rollout["seconds"].as_f64().unwrap();
        let last = rollouts.iter().map(end).fold(0.0, f64::max);
        assert!((last - seconds(round)).abs() < 1e-6, "{last} and {round}");
        assert!(rollouts.iter().all(|rollout| rollout["first"].as_f64() <= rollout["seconds"].as_f64()));
    }
}

#[tokio::test]
async fn one_server_alone_has_numbers_and_no_ratio() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let flags = ["--concurrency", "2", "--rounds", "2", "--max-tokens", "4"];
    for (flag, url, arm) in [("--direct", rig.fake.url(), "direct"), ("--proxy", rig.sidecar.url.clone(), "proxied")] {
        let output = bench.run(&[&[flag, &url], &flags[..]].concat()).await;
        assert!(output.status.success(), "{}", stderr(&output));
        let why = format!("only the {arm} server was measured");
        assert!(stdout(&output).contains(&format!("no ratio for lines, concurrency 2: {why}")), "{}", stdout(&output));
        assert!(!stdout(&output).contains("ratio: "), "{}", stdout(&output));
        let summary = &bench.report()["cells"][0]["summary"];
        assert_eq!(summary["comparison"], json!({"no_ratio": why}));
        assert!(summary[arm]["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test]
async fn an_error_voids_its_round_and_leaves_no_ratio() {
    let (rig, bench) = (Rig::usual().await, Bench::new(&[json!({"prompt": [5, 6], "max_tokens": 4})]));
    // The first pair begins with the direct arm.
    rig.fake.fail_next("/v1/completions", 1, StatusCode::INTERNAL_SERVER_ERROR);
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let flags = ["--concurrency", "1", "--rounds", "3", "--requests", "2", "--warmup", "0"];
    let output = bench.run(&[&urls[..], &flags].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    let why = "round 1 of the direct arm is void: 1 of 2 rollouts failed, the first with: status 500";
    assert!(stdout(&output).contains(why), "{}", stdout(&output));
    let report = bench.report();
    let cell = &report["cells"][0];
    assert!(cell["summary"]["comparison"]["no_ratio"].as_str().unwrap().starts_with(why));
    assert!(cell["summary"]["comparison"]["speed"].is_null());
    assert_eq!(cell["summary"]["direct"]["void_rounds"], 1);
    assert_eq!(cell["summary"]["direct"]["rollouts"], 4);
    assert!(cell["pairs"][0]["direct"]["rollouts"][0]["error"].as_str().unwrap().contains("500"));
    assert!(cell["pairs"][0]["direct"]["rollouts"][0]["tokens"].is_null());
}

#[tokio::test]
async fn what_cannot_be_compared_fairly_is_refused() {
    let (rig, bench) = (Rig::usual().await, Bench::usual());
    let refused = async |flags: &[&str]| {
        let output = bench.run(flags).await;
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        assert!(output.stdout.is_empty() && !bench.path("report.json").exists() && !bench.path("page.html").exists());
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        stderr(&output)
    };
    let said = refused(&["--direct", &rig.sidecar.url, "--proxy", &rig.sidecar.url]).await;
    assert!(said.contains("is a sidecar: --direct must be the server itself"), "{said}");
    let other = FakeVllm::start(FakeConfig { model_name: "other".to_owned(), ..FakeConfig::default() }).await;
    let said = refused(&["--direct", &other.url(), "--proxy", &rig.sidecar.url]).await;
    assert!(said.contains("the models differ: other"), "{said}");
    let said = refused(&["--direct", &other.url(), "--model", "third"]).await;
    assert!(said.contains("has no model third"), "{said}");
    other.kill().await;
    let said = refused(&["--direct", &other.url(), "--proxy", &rig.sidecar.url]).await;
    assert!(said.contains("cannot reach"), "{said}");
}

#[tokio::test]
async fn a_mistyped_line_is_told_by_file_and_line() {
    let bench = Bench::new(&[json!({"prompt": "fine"}), json!({"promt": "not"})]);
    let output = bench.run(&["--direct", "http://127.0.0.1:9"]).await;
    let place = format!("{}:2: neither `messages` nor `prompt`", bench.path("lines.jsonl").display());
    assert_eq!(stderr(&output).trim_end(), format!("sidedraft: {place}"));
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn epochs_come_back_to_their_prompts_and_the_command_knows_which_one_is_next() {
    let prompts = (1..=4).map(|id| json!({"prompt": [id, 5], "max_tokens": 4, "answer": -1}));
    let (rig, bench) = (Rig::usual().await, Bench::new(&prompts.collect::<Vec<_>>()));
    let urls = ["--direct", &rig.fake.url(), "--proxy", &rig.sidecar.url];
    let log = bench.path("epochs").display().to_string();
    let command = format!("echo $SIDEDRAFT_EPOCH >> {log}; echo loaded");
    let flags = ["--epochs", "2", "--steps", "3", "--prompts", "2", "--samples", "2", "--concurrency", "1,3"];
    let output = bench.run_as(&["rl"], &[&urls[..], &flags, &["--between", &command]].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "1\n2\n");
    assert_eq!((stderr(&output).as_str(), stdout(&output).contains("loaded")), ("loaded\nloaded\n", false));
    let report = bench.report();
    let cells = list(&report["cells"]);
    let shape: Vec<_> =
        cells.iter().map(|cell| [&cell["epoch"], &cell["concurrency"]].map(|n| n.as_u64().unwrap())).collect();
    assert_eq!(shape, [[1, 1], [1, 3], [2, 1], [2, 3]]);
    let plan = |cell: &Value, arm: &str| -> Vec<(Vec<u64>, String)> {
        let rounds = list(&cell["pairs"]).iter().map(|pair| &pair[arm]);
        let lines = |round: &Value| list(&round["rollouts"]).iter().map(|r| r["line"].as_u64().unwrap()).collect();
        rounds.map(|round| (lines(round), round["cache_salt"].to_string())).collect()
    };
    let [first, .., again, _] = &cells[..] else { panic!("{cells:?}") };
    assert_eq!(plan(first, "proxied"), plan(again, "proxied"), "the same prompts under the same salts");
    let steps = plan(first, "proxied");
    assert_eq!(
        steps.iter().map(|(lines, _)| lines.clone()).collect::<Vec<_>>(),
        [[1, 1, 2, 2], [3, 3, 4, 4], [1, 1, 2, 2]]
    );
    assert_eq!((steps[0].1 == steps[1].1, steps[0].1 == steps[2].1), (true, false));
    assert!(
        steps.iter().zip(plan(first, "direct")).all(|(proxied, direct)| proxied.0 == direct.0 && proxied.1 != direct.1)
    );
    for cell in cells {
        assert_eq!(cell["summary"]["direct"]["reward"]["mean"], 0.0);
        let makespans = list(&cell["pairs"])
            .iter()
            .map(|pair| pair["proxied"]["seconds"].as_f64().unwrap() / pair["direct"]["seconds"].as_f64().unwrap());
        let shown = format!("{:.3} (", middle_of_three(&makespans.collect::<Vec<_>>()));
        assert!(stdout(&output).contains(&shown), "{shown} in {}", stdout(&output));
    }
}

#[tokio::test]
async fn a_command_that_fails_between_epochs_ends_the_benchmark() {
    let (rig, bench) = (Rig::usual().await, Bench::new(&[json!({"prompt": [5, 6], "max_tokens": 2})]));
    let flags = ["--steps", "1", "--prompts", "1", "--samples", "1", "--concurrency", "1", "--between", "exit 7"];
    let output = bench.run_as(&["rl"], &[&["--direct", rig.fake.url().as_str()], &flags[..]].concat()).await;
    assert!(!output.status.success());
    assert!(stderr(&output).contains("before epoch 1, exit 7: exit status: 7"), "{}", stderr(&output));
    assert_eq!(bench.report()["finished"], false);
}
