//! The drafters of a rollout, as the settings say.

use std::path::Path;

use crate::config::TargetSettings;
use crate::draft::{Drafter, NeuralDrafter, NgramDrafter};
use crate::model::{DraftModel, ModelError, ModelSource};
use crate::rollout::DrafterFactory;
use crate::telemetry::{Kind, Metrics};

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

/// Has the metrics page say what the draft model does.
///
/// # Errors
/// When a figure of the same name is there already.
pub fn watch(model: &DraftModel, metrics: &Metrics) -> prometheus::Result<()> {
    type Read = fn(&DraftModel) -> u64;
    let figures: [(Kind, &str, &str, Read); 8] = [
        (Kind::Gauge, "sequences", "Rollouts whose keys and values the draft model holds.", |model| {
            model.active_sequences() as u64
        }),
        (Kind::Gauge, "cache_pages", "Pages of the draft model's cache, 16 tokens each.", |model| model.pages() as u64),
        (Kind::Gauge, "cache_pages_held", "Pages that rollouts hold; one that several share counts once.", |model| {
            model.pages_held() as u64
        }),
        (
            Kind::Counter,
            "evictions_total",
            "Rollouts whose pages another took, to be computed again.",
            DraftModel::evictions,
        ),
        (Kind::Counter, "rows_total", "Tokens that went through the draft model.", DraftModel::rows),
        (
            Kind::Counter,
            "recalled_tokens_total",
            "Tokens that did not have to, since a page held them already.",
            DraftModel::recalled,
        ),
        (
            Kind::Counter,
            "used_ahead_tokens_total",
            "Tokens drafted while the server verified that became part of a draft.",
            DraftModel::used_ahead,
        ),
        (
            Kind::Counter,
            "failures_total",
            "Steps that failed and ended the draft model; rollouts went on without it.",
            DraftModel::failures,
        ),
    ];
    for (kind, name, help, read) in figures {
        let model = model.clone();
        metrics.figure(kind, &format!("sidedraft_draft_model_{name}"), help, move || read(&model))?;
    }
    metrics.draft.runs_on(model.device(), model.fallback());
    Ok(())
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

impl DraftModelError {
    /// Whether a GPU is the cause.
    pub(super) fn is_gpus(&self) -> bool {
        matches!(self, Self::Model(error) if error.gpu_fault().is_some())
    }
}

/// Loads and starts the draft model at `path`, off the asynchronous threads.
///
/// # Errors
/// When it cannot be loaded or started.
pub async fn load_draft_model(path: &Path, settings: &TargetSettings) -> Result<DraftModel, DraftModelError> {
    let source = ModelSource::from_path(path);
    let options = settings.model_options();
    let load = move || DraftModel::load(&source, &options).and_then(|loaded| loaded.spawn());
    let loaded = tokio::task::spawn_blocking(load).await;
    Ok(loaded.map_err(|error| DraftModelError::Load(error.to_string()))??)
}
