//! The draft engine computes what transformers computes.

use std::process::Command;

use sidedraft::model::{DraftModel, ModelOptions, ModelSource, Precision};

use crate::server::{model_dir, python};

const IDS: [u32; 12] = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198];

/// Float32 logits by transformers, one row for each of the ids.
fn reference(ids: &str) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/target/reference_logits.py");
    let status = Command::new(python())
        .args([script, "--model", &model_dir(), "--ids", ids, "--out", file.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    let values: Vec<f32> = logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    values.chunks_exact(logits.shape()[1]).map(<[f32]>::to_vec).collect()
}

/// The largest difference in proportion to the largest reference value.
pub fn relative_error(ours: &[f32], theirs: &[f32]) -> f32 {
    let scale = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}

#[tokio::test]
async fn logits_match_transformers_and_survive_a_rollback() {
    let text: Vec<String> = IDS.iter().map(u32::to_string).collect();
    let reference = reference(&text.join(","));
    let options = ModelOptions { precision: Precision::F32, threads: 2, ..ModelOptions::default() };
    let model = DraftModel::load(&ModelSource::HuggingFace(model_dir().into()), &options).unwrap().spawn().unwrap();

    let mut sequence = model.sequence();
    for (position, theirs) in reference.iter().enumerate() {
        let ours = sequence.logits(&IDS[..=position]).await.unwrap();
        let error = relative_error(&ours, theirs);
        assert!(error < 1e-3, "position {position}: relative error {error}");
    }

    // Back to the middle, on with other tokens, back again and on with the first ones.
    let mut other = IDS[..6].to_vec();
    other.extend([99, 100, 101]);
    sequence.logits(&other).await.unwrap();
    let returned = sequence.logits(&IDS).await.unwrap();
    let fresh = model.sequence().logits(&IDS).await.unwrap();
    let error = relative_error(&returned, &fresh);
    assert!(error < 1e-5, "after a rollback: relative error {error}");
}
