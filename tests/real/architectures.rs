//! The draft engine computes what transformers computes, for small random models of every architecture and every type of
//! file. Needs the target's Python, but no server.

use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use sidedraft::model::{DraftModel, ModelOptions, ModelSource, Precision};

use crate::logits::relative_error;
use crate::server::python;

/// A Hugging Face folder each, made by transformers itself: in float32 with the rope of Llama 3 as transformers 5 and as
/// earlier releases write it; in float16 with a tied head and biases; in bfloat16, sharded, with norms of heads.
const FOLDERS: [&str; 4] = ["llama", "llama-older", "qwen2", "qwen3"];

/// A GGUF file each: every type that can be read, and every architecture.
const FILES: [&str; 19] = [
    "llama:F32",
    "llama:F16",
    "llama:BF16",
    "llama:Q4_0",
    "llama:Q4_1",
    "llama:Q5_0",
    "llama:Q5_1",
    "llama:Q8_0",
    "llama:Q2_K",
    "llama:Q3_K",
    "llama:Q4_K",
    "llama:Q5_K",
    "llama:Q6_K",
    "qwen2:F32",
    "qwen2:Q4_K",
    "qwen2:Q8_0",
    "qwen3:F32",
    "qwen3:Q4_K",
    "qwen3:Q8_0",
];

/// A context, and the logits after each of its tokens.
struct Context {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Writes the models into `folder`, with what transformers computes of them.
fn make(folder: &Path, flags: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/model_logits.py");
    let output = Command::new(python()).args([script, "--out", folder.to_str().unwrap()]).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn contexts(path: PathBuf) -> Vec<Context> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: String| tensors.tensor(&name).ok().map(|tensor| tensor.data().as_chunks::<4>().0.to_vec());
    let context = |index: usize| {
        let ids: Vec<u32> = words(format!("ids.{index}"))?.into_iter().map(u32::from_le_bytes).collect();
        let logits: Vec<f32> = words(format!("logits.{index}"))?.into_iter().map(f32::from_le_bytes).collect();
        let logits = logits.chunks_exact(logits.len() / ids.len()).map(<[f32]>::to_vec).collect();
        Some(Context { ids, logits })
    };
    (0..).map_while(context).collect()
}

/// The largest relative error at any position of any context, fed token by token and at once.
async fn worst(source: &ModelSource, contexts: &[Context]) -> f32 {
    let options = ModelOptions { precision: Precision::F32, ..ModelOptions::default() };
    let model = DraftModel::load(source, &options).unwrap().spawn().unwrap();
    let mut worst = 0.0_f32;
    for Context { ids, logits } in contexts {
        let mut sequence = model.sequence();
        for (position, theirs) in logits.iter().enumerate() {
            let ours = sequence.logits(&ids[..=position]).await.unwrap();
            worst = worst.max(relative_error(&ours, theirs));
        }
        let at_once = model.sequence().logits(ids).await.unwrap();
        worst = worst.max(relative_error(&at_once, logits.last().unwrap()));
    }
    worst
}

/// Asserts that every one of `models`, each a name and where it lies, computes what is written beside it in `folder`.
async fn assert_all_agree(folder: &Path, models: impl Iterator<Item = (String, PathBuf)>) {
    let mut failures = Vec::new();
    for (name, path) in models {
        let contexts = contexts(folder.join(format!("{name}.safetensors")));
        assert!(contexts.iter().any(|context| context.ids.len() > 100), "{name}: no long context");
        let worst = worst(&ModelSource::from_path(path), &contexts).await;
        eprintln!("{name}: relative error {worst:.1e}");
        if worst >= 1e-3 {
            failures.push(format!("{name}: {worst}"));
        }
    }
    assert!(failures.is_empty(), "logits differ from those of transformers: {failures:?}");
}

#[tokio::test]
async fn folders_of_every_architecture_give_the_logits_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[]);
    let models = FOLDERS.iter().map(|name| ((*name).to_owned(), folder.path().join(name)));
    assert_all_agree(folder.path(), models).await;
}

#[tokio::test]
async fn gguf_files_of_every_type_give_the_logits_of_the_weights_that_they_stand_for() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &["--gguf", &FILES.join(",")]);
    let models = FILES.iter().map(|file| {
        let name = file.replace(':', "-");
        let path = folder.path().join(format!("{name}.gguf"));
        (name, path)
    });
    assert_all_agree(folder.path(), models).await;
}
