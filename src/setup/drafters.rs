//! The drafters of a rollout, as the settings say.

use std::path::Path;

use crate::config::TargetSettings;
use crate::draft::{Drafter, NeuralDrafter, NgramDrafter};
use crate::model::{DraftModel, ModelError, ModelOptions, ModelSource};
use crate::rollout::DrafterFactory;

/// Makes each rollout's drafters.
#[derive(Debug, Default)]
pub struct Factory {
    /// The draft model, and how many ids of the target's vocabulary it may propose.
    pub neural: Option<(DraftModel, usize)>,
    /// The shortest and the longest n-gram to look for.
    pub ngram: Option<(usize, usize)>,
}

impl DrafterFactory for Factory {
    fn drafters(&self) -> Vec<Box<dyn Drafter>> {
        let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
        if let Some((shortest, longest)) = self.ngram {
            drafters.push(Box::new(NgramDrafter::new(shortest, longest)));
        }
        if let Some((model, vocabulary)) = &self.neural {
            drafters.push(Box::new(NeuralDrafter::new(model.sequence(), *vocabulary)));
        }
        drafters
    }
}

/// Why there is no draft model.
#[derive(Debug, thiserror::Error)]
pub enum DraftModelError {
    /// It cannot be loaded or started.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Loading it panicked.
    #[error("loading the draft model failed: {0}")]
    Load(String),
}

/// Loads and starts the draft model at `path`, off the asynchronous threads.
///
/// # Errors
/// When it cannot be loaded or started.
pub async fn load_draft_model(path: &Path, settings: &TargetSettings) -> Result<DraftModel, DraftModelError> {
    let source = ModelSource::from_path(path);
    let options =
        ModelOptions { precision: settings.precision(), threads: settings.draft_threads, ..ModelOptions::default() };
    let load = move || DraftModel::load(&source, &options).and_then(|loaded| loaded.spawn());
    let loaded = tokio::task::spawn_blocking(load).await;
    Ok(loaded.map_err(|error| DraftModelError::Load(error.to_string()))??)
}
