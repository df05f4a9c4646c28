//! Text is what vLLM's own classes make of the same tokens. Needs the target's Python, but no server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sidedraft::text::{Detokenizer, StopStrings, Tokenizer, token_text};

use crate::server::{model_dir, python};

/// A request and what vLLM did, as `tests/text/vllm_text.py` writes it.
#[derive(Deserialize)]
struct Case {
    folder: PathBuf,
    prompt: Vec<u32>,
    skip_special_tokens: bool,
    spaces_between_special_tokens: bool,
    stop: Vec<String>,
    include_stop_str_in_output: bool,
    min_tokens: usize,
    steps: Vec<Step>,
    stopped: Option<String>,
    text: String,
    /// How often the decode stream broke and was started again.
    resets: usize,
}

/// One position. The first of the candidates is the sampled token.
#[derive(Deserialize)]
struct Step {
    candidates: Vec<u32>,
    names: Vec<String>,
    added: String,
    shown: String,
}

fn cases(folder: &Path) -> Vec<Case> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/text/vllm_text.py");
    let out = folder.to_str().unwrap();
    let output = Command::new(python()).args([script, "--model", &model_dir(), "--out", out]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap()
}

/// The first thing in which we differ from vLLM.
fn difference(case: &Case, tokenizer: &Tokenizer) -> Result<(), String> {
    let differs = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        if format!("{ours:?}") == format!("{theirs:?}") {
            Ok(())
        } else {
            Err(format!("{what}: {ours:?}, vLLM {theirs:?}"))
        }
    };
    let spaces = case.spaces_between_special_tokens;
    let mut detokenizer = Detokenizer::new(tokenizer.clone(), &case.prompt, case.skip_special_tokens, spaces);
    let stop = StopStrings::new(case.stop.clone(), case.include_stop_str_in_output);
    let (mut text, mut tokens, mut taken, mut stopped) = (String::new(), Vec::new(), 0, None);
    for (position, step) in case.steps.iter().enumerate() {
        let name = |token: &u32| token_text(tokenizer, *token, &tokens).unwrap();
        let names: Vec<String> = step.candidates.iter().map(name).collect();
        differs(&format!("names of {:?} at {position}", step.candidates), &names, &step.names)?;

        tokens.push(step.candidates[0]);
        let seen = text.len();
        let added = detokenizer.push(step.candidates[0]).unwrap();
        differs(&format!("text added at {position}"), &added, &step.added)?;
        text.push_str(&added);
        if tokens.len() > case.min_tokens
            && let Some(found) = stop.find(&text, seen)
        {
            text.truncate(found.cut);
            stopped = Some(found.string);
        }
        let over = stopped.is_some() || position + 1 == case.steps.len();
        let safe = if over { text.len() } else { stop.safe_length(&text) };
        let shown = text.get(taken..safe).unwrap_or_default();
        differs(&format!("text shown at {position}"), &shown, &step.shown)?;
        taken = taken.max(safe);
    }
    differs("stop string", &stopped, &case.stopped)?;
    differs("text", &text, &case.text)
}

#[test]
fn text_names_and_stop_strings_are_those_of_vllm_on_every_kind_of_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let mut tokenizers: HashMap<&Path, Tokenizer> = HashMap::new();
    let mut failures = Vec::new();
    for case in &cases {
        let tokenizer = tokenizers.entry(&case.folder).or_insert_with(|| Tokenizer::load(&case.folder).unwrap());
        if let Err(failure) = difference(case, tokenizer) {
            let name = case.folder.file_name().unwrap().display();
            let (skip, spaces) = (case.skip_special_tokens, case.spaces_between_special_tokens);
            failures.push(format!("{name}, skip {skip}, spaces {spaces}, stop {:?}: {failure}", case.stop));
        }
    }
    let steps: usize = cases.iter().map(|case| case.steps.len()).sum();
    let stops = cases.iter().filter(|case| case.stopped.is_some()).count();
    let resets: usize = cases.iter().map(|case| case.resets).sum();
    eprintln!("{} sequences, {steps} tokens, {stops} stopped by a string, {resets} broken streams", cases.len());
    assert!(cases.len() >= 400 && stops >= 100 && resets >= 10, "the cases do not cover what they should");
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
