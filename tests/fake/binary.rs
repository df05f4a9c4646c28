//! The command itself.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::support::fake_vllm::{FakeConfig, FakeVllm, Runner, TextCodec};
use super::tiny_llama;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidedraft"));
    command.args(arguments).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Output {
    command(arguments).output().await.unwrap()
}

#[tokio::test]
async fn settings_that_make_no_sense_are_one_line_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let fine = ["--upstream", "http://127.0.0.1:9"];
    for settings in [
        vec!["--upstream", "not a url"],
        vec!["--upstream", "ftp://127.0.0.1"],
        vec!["--upstream", "http://127.0.0.1:9?a=b"],
        [&fine[..], &["--drafter", "neural"]].concat(),
        [&fine[..], &["--draft-device", "cuda"]].concat(),
        [&fine[..], &["--draft-device", "cuda", "--draft-model", "/m", "--draft-precision", "f32"]].concat(),
        [&fine[..], &["--draft-device", "cuda", "--draft-model", "/m", "--draft-threads", "2"]].concat(),
        [&fine[..], &["--ngram-min", "5", "--ngram-max", "3"]].concat(),
        [&fine[..], &["--upstream-api-key", "a\nb"]].concat(),
        [&fine[..], &["--upstream-ca", "/ca.pem"]].concat(),
        vec!["--upstream", "https://127.0.0.1:9", "--upstream-ca", "/nowhere.pem"],
        vec!["--upstream", "http://user:word@127.0.0.1:9"],
        [&fine[..], &["--suffix", "--history-redis", "http://user:word@127.0.0.1:9"]].concat(),
        [&fine[..], &["--history-redis", "redis://user:word@127.0.0.1:9"]].concat(),
        [&fine[..], &["--replay", "--history-redis", "redis://127.0.0.1:9", "--history-redis-ttl", "0"]].concat(),
    ] {
        for subcommand in ["serve", "doctor"] {
            let output = run(&[&[subcommand], &settings[..]].concat()).await;
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{subcommand} {settings:?}");
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
            assert!(said.starts_with("sidedraft: ") && !said.contains("word"), "{said}");
            assert!(output.stdout.is_empty());
        }
    }
    let keyless = [&["serve"], &fine[..], &["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"]].concat();
    let said = String::from_utf8(run(&keyless).await.stderr).unwrap();
    assert!(said.starts_with("sidedraft: --tls-cert: /nowhere.key: "), "{said}");
    drop(folder);
}

#[tokio::test]
async fn flags_that_do_not_exist_or_have_no_such_value_are_refused_in_one_line() {
    for flags in [
        vec!["serve"],
        vec!["serve", "--upstream", "http://h", "--draft-tokens", "0"],
        vec!["serve", "--upstream", "http://h", "--draft-tokens", "65"],
        vec!["serve", "--upstream", "http://h", "--strategy", "magic"],
        vec!["serve", "--upstream", "http://h", "--draft-device", "tpu"],
        vec!["serve", "--upstream", "http://h", "--tls-cert", "/c"],
        vec!["serve", "--upstream", "http://h", "--api-key", ""],
        vec!["serve", "--upstream", "http://h", "--max-rollouts", "0"],
        vec!["doctor", "--nonsense"],
    ] {
        let output = run(&flags).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(said.starts_with("sidedraft: "), "{said}");
    }
    assert_eq!(run(&[]).await.status.code(), Some(2));
}

/// Flags for a draft model on a GPU where there is none: whoever runs the tests may have one, so it is hidden.
async fn without_a_gpu(arguments: &[&str], folder: &std::path::Path) -> Output {
    let draft = ["--draft-model", folder.to_str().unwrap()];
    let mut command = command(&[arguments, &draft].concat());
    command.env("CUDA_VISIBLE_DEVICES", "").output().await.unwrap()
}

#[tokio::test]
async fn a_gpu_that_is_insisted_on_and_is_not_there_is_said_at_the_start() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), 64);
    let url = fake.url();
    let serve = ["serve", "--upstream", &url, "--listen", "127.0.0.1:0", "--log", "off", "--draft-device", "cuda"];
    let output = without_a_gpu(&serve, folder.path()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(said.starts_with("sidedraft: --draft-device cuda: there is no GPU: "), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");

    let output = without_a_gpu(&["doctor", "--upstream", &url, "--draft-device", "cuda"], folder.path()).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && report.contains("there is no GPU"), "{report}");
    let output = without_a_gpu(&["doctor", "--upstream", &url], folder.path()).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report.lines().any(|line| line.starts_with("ok    draft device") && line.ends_with("the CPU")), "{report}");
}

#[tokio::test]
async fn what_a_draft_model_costs_is_a_table_with_a_comparison_above_it() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    tiny_llama::write(folder.path(), fake.codec(), 64);
    let json = folder.path().join("figures.json");
    let flags = ["--model", folder.path().to_str().unwrap(), "--json", json.to_str().unwrap(), "--device", "cpu"];
    let lists = ["--batches", "1,2", "--contexts", "8,1000000", "--lengths", "2", "--rounds", "3", "--check", "40"];
    let bench = [&["bench", "draft"], &flags[..], &lists].concat();
    let output = run(&bench).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Q8_0 on the CPU, one thread") && said.contains("40 positions"), "{said}");
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows[0].starts_with("| 1 | 8 | 2 |") && rows[0].ends_with("| 3 |"), "{said}");
    assert!(rows.len() == 4 && rows[1].contains("the model has") && rows[3].contains("the model has"), "{said}");
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&figures["device"], &figures["fallback"]), (&json!("cpu"), &Value::Null));
    assert_eq!((figures["cells"].as_array().unwrap().len(), &figures["agreement"]["positions"]), (4, &json!(40)));
    assert!(figures["cells"][0]["micros_per_step"].as_f64().unwrap() > 0.0);

    let output = run(&[&bench[..], &["--most-error", "1e-9"]].concat()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("logits are off by"), "{said}");
    assert!(run(&["bench", "draft"]).await.status.code() == Some(2));
}

#[tokio::test]
async fn the_doctor_says_by_its_exit_code_whether_speculation_would_work() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let tokenizer = tokenizer.to_str().unwrap();
    let url = fake.url();
    let ask = |upstream: String, flags: Vec<String>| async move {
        let mut arguments = vec!["doctor", "--upstream", &upstream];
        arguments.extend(flags.iter().map(String::as_str));
        let output = run(&arguments).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let flags = |list: &[&str]| list.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();

    let (code, report) = ask(url.clone(), flags(&["--tokenizer", tokenizer])).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("vLLM 0.32.0") && report.contains("A cached suffix"), "{report}");

    let (code, report) = ask(url.clone(), flags(&["--tokenizer", tokenizer, "--drafter", "off"])).await;
    assert_eq!(code, Some(1), "{report}");
    let (code, report) = ask(url.clone(), Vec::new()).await;
    assert_eq!((code, report.contains("--tokenizer")), (Some(1), true), "{report}");
    let other = tempfile::tempdir().unwrap();
    let wrong = TextCodec::new(50).write(other.path());
    let (code, report) = ask(url.clone(), flags(&["--tokenizer", wrong.to_str().unwrap()])).await;
    assert_eq!((code, report.contains("not the server's")), (Some(1), true), "{report}");
    fake.kill().await;
    let (code, report) = ask(url, flags(&["--tokenizer", tokenizer])).await;
    assert_eq!((code, report.contains("/health")), (Some(1), true), "{report}");
}

#[tokio::test]
async fn the_doctor_names_the_flag_that_would_help() {
    let fake = FakeVllm::start(FakeConfig { scale_out: false, ..FakeConfig::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let output = run(&["doctor", "--upstream", &fake.url(), "--tokenizer", tokenizer.to_str().unwrap()]).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && report.contains("--enable-scale-out"), "{report}");
}

#[tokio::test]
async fn the_doctor_says_whether_given_ids_are_scored() {
    for (runner, expected) in [(Runner::V2, "scored: old rollouts"), (Runner::V1, "not scored (vLLM 0.31")] {
        let fake = FakeVllm::start(FakeConfig { runner, ..FakeConfig::default() }).await;
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = fake.write_tokenizer(folder.path());
        let output = run(&["doctor", "--upstream", &fake.url(), "--tokenizer", tokenizer.to_str().unwrap()]).await;
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && report.contains(expected), "{report}");
    }
}

#[tokio::test]
async fn the_doctor_says_whether_chat_is_speculated() {
    for (reasoning_parser, expected) in [(false, "by the render route"), (true, "parser works on the replies")] {
        let fake = FakeVllm::start(FakeConfig { reasoning_parser, ..FakeConfig::default() }).await;
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = fake.write_tokenizer(folder.path());
        let output = run(&["doctor", "--upstream", &fake.url(), "--tokenizer", tokenizer.to_str().unwrap()]).await;
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && report.contains(expected), "{report}");
    }
}

#[tokio::test]
async fn the_server_says_where_it_listens_and_drains_when_it_is_told_to_stop() {
    let fake = FakeVllm::start_default().await;
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = fake.write_tokenizer(folder.path());
    let mut child = command(&["serve", "--upstream", &fake.url(), "--listen", "127.0.0.1:0"])
        .args(["--tokenizer", tokenizer.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let url = line["listening"].as_str().unwrap().to_owned();

    let hang = fake.hang_next("chat");
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3});
    let request = reqwest::Client::new().post(url + "/v1/chat/completions").json(&body).send();
    let request = tokio::spawn(async move { request.await.unwrap().status() });
    hang.reached().await;
    let signal = std::process::Command::new("kill").args(["-TERM", &child.id().unwrap().to_string()]).status();
    assert!(signal.unwrap().success());
    hang.release();
    assert_eq!(request.await.unwrap(), http::StatusCode::OK);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn unless_told_otherwise_it_listens_to_this_machine_alone() {
    let help = String::from_utf8(run(&["serve", "--help"]).await.stdout).unwrap();
    let listen = help.split("--listen <").nth(1).unwrap().split("--").next().unwrap();
    assert!(listen.contains("[default: 127.0.0.1:8001]"), "{listen}");
}
