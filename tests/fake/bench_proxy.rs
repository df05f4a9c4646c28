//! `sidedraft bench proxy` counts what it sends, and the sidecar that it starts counts the same.

use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn every_request_is_answered_and_every_one_of_the_sidecars_was_forwarded() {
    let folder = tempfile::tempdir().unwrap();
    let (json, page) = (folder.path().join("out.json"), folder.path().join("page.md"));
    std::fs::write(&page, "before\n<!-- bench proxy: begin -->\n<!-- bench proxy: end -->\nafter\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sidedraft"))
        .args(["bench", "proxy", "--nginx", "/does/not/exist", "--rounds", "2", "--seconds", "0.5"])
        .args(["--requests", "30", "--connections", "3", "--streams", "1,2", "--json"])
        .arg(&json)
        .arg("--write")
        .arg(&page)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (said, progress) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}{progress}");
    assert_eq!(progress, "round 1 of 2\nround 2 of 2\n");

    assert!(said.contains("No nginx was found"), "{said}");
    assert!(said.contains("| | direct | sidecar |\n"), "{said}");
    assert_eq!(
        std::fs::read_to_string(&page).unwrap(),
        format!("before\n<!-- bench proxy: begin -->\n{said}<!-- bench proxy: end -->\nafter\n")
    );

    let all: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(all["ways"], serde_json::json!(["direct", "sidecar"]));
    for way in 0..2 {
        for (kind, counts) in all["requests"][way].as_array().unwrap().iter().enumerate() {
            let (sent, answered) = (counts[0].as_u64().unwrap(), counts[1].as_u64().unwrap());
            assert_eq!(sent, answered);
            // Of the first two kinds, 30 one by one and one before them in each round; of streams, one a connection.
            assert!(sent >= if kind < 2 { 62 } else { 6 }, "{counts}");
            if way == 1 {
                assert_eq!(all["forwarded"][kind], sent);
            }
        }
    }
    let lines = all["lines"].as_array().unwrap();
    for measure in ["latency_p50", "latency_p99", "requests_per_second", "tokens_per_second"] {
        assert_eq!(lines.iter().filter(|line| line["measure"] == measure).count(), 2, "{measure}");
    }
    for line in lines.iter().filter(|line| line["measure"] == "requests_per_second") {
        for values in line["values"].as_array().unwrap() {
            let values: Vec<f64> = values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            assert!(values.len() == 2 && values.iter().all(|value| *value > 0.0), "{line}");
        }
    }
}
