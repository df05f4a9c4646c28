//! Puts the rooms together for one server: tokenizer, draft model, probe, engine.

mod drafters;
mod past;
mod tokenizer;
mod vocabulary;

use std::sync::{Arc, Once};

use tokio::sync::OnceCell;

pub use drafters::{DraftModelError, Factory, load_draft_model, watch};
pub use vocabulary::compare_with_draft;

use crate::api::readiness::BuildFuture;
use crate::api::{EngineBuilder, Readiness};
use crate::config::{DraftDeviceChoice, DrafterChoice, TargetSettings};
use crate::model::{DraftModel, Fallback};
use crate::rollout::controller::Policy;
use crate::rollout::{Control, DrafterFactory, Engine, EngineSettings, Past};
use crate::speculation::{AcceptanceRule, Lossless};
use crate::telemetry::Metrics;
use crate::text::Tokenizer;
use crate::upstream::{Capabilities, SamplingFields, Upstream, UpstreamError};

/// Makes engines as the settings say.
pub struct Setup {
    settings: TargetSettings,
    policy: Policy,
    upstream: Upstream,
    metrics: Metrics,
    rule: Arc<dyn AcceptanceRule>,
    draft_model: OnceCell<Option<DraftModel>>,
    /// Done once the draft model's figures are on the metrics page.
    watched: Once,
    drafters: Option<Arc<dyn DrafterFactory>>,
    /// What outlives the engines, as the rollouts that it knows do.
    past: Option<Past>,
    /// The same.
    control: Control,
}

impl Setup {
    /// A set-up of the lossless rule.
    #[must_use]
    pub fn new(settings: TargetSettings, policy: Policy, upstream: Upstream, metrics: Metrics) -> Self {
        let rule = Arc::new(Lossless);
        let control = Control::new(metrics.control.clone());
        let past = past::past(&settings.history, &control, &metrics);
        let (draft_model, watched) = (OnceCell::new(), Once::new());
        Self { settings, policy, upstream, metrics, rule, draft_model, watched, drafters: None, past, control }
    }

    /// The same with another rule of acceptance, by which a test shows that a wrong one is noticed.
    #[must_use]
    pub fn with_rule(self, rule: Arc<dyn AcceptanceRule>) -> Self {
        Self { rule, ..self }
    }

    /// The same with a draft model that runs already.
    #[must_use]
    pub fn with_draft_model(self, model: DraftModel) -> Self {
        Self { draft_model: OnceCell::new_with(Some(Some(model))), ..self }
    }

    /// The same with drafters that are not among the settings' choices.
    #[must_use]
    pub fn with_drafters(self, drafters: Arc<dyn DrafterFactory>) -> Self {
        Self { drafters: Some(drafters), ..self }
    }

    /// Loads the draft model now where the settings insist on a GPU: whoever does is told at once that there is none to be
    /// had. What is wrong with the model itself is found later, and gone on without.
    ///
    /// # Errors
    /// When the GPU cannot be used.
    pub async fn insist(&self) -> Result<(), DraftModelError> {
        let Some(path) = self.settings.drafting_model() else { return Ok(()) };
        if self.settings.draft_device != DraftDeviceChoice::Cuda {
            return Ok(());
        }
        let load = || async { load_draft_model(path, &self.settings).await.map(Some) };
        match self.draft_model.get_or_try_init(load).await {
            Err(error) if error.is_gpus() => Err(error),
            _ => Ok(()),
        }
    }

    /// The draft model, loaded at the first call; none if there is to be none or it cannot be had, which is counted.
    async fn draft_model(&self) -> Option<DraftModel> {
        let path = self.settings.drafting_model();
        let model = self.draft_model.get_or_init(|| async {
            match load_draft_model(path?, &self.settings).await {
                Ok(model) => Some(model),
                Err(error) => {
                    tracing::error!(%error, "going on without the draft model");
                    self.metrics.draft.availability("neural", Some("load"));
                    None
                }
            }
        });
        model.await.clone()
    }

    /// Says what runs the draft model and shows its figures, the first time.
    fn introduce(&self, model: &DraftModel) {
        self.watched.call_once(|| {
            if let Some(Fallback { reason, explanation }) = model.fallback() {
                tracing::warn!(reason, explanation, "the draft model runs on the CPU: the GPU cannot be used");
            }
            tracing::info!(device = %model.device(), positions = model.max_positions(), "the draft model is loaded");
            if let Err(error) = watch(model, &self.metrics) {
                tracing::error!(%error, "the draft model's figures are not on the metrics page");
            }
        });
    }

    /// The drafters that fit the target's vocabulary.
    async fn factory(&self, tokenizer: &Tokenizer) -> Factory {
        let mut factory = Factory::default();
        if let Some(model) = self.draft_model().await {
            self.introduce(&model);
            let path = self.settings.draft_model.as_deref();
            let all = tokenizer.vocabulary_size();
            match path.map_or(Ok(all), |path| compare_with_draft(tokenizer, path)) {
                Ok(shared) => {
                    if shared < all {
                        tracing::info!(shared, all, "the draft model drafts the ids that it shares with the target");
                    }
                    self.metrics.draft.availability("neural", None);
                    factory.neural = Some((model, shared));
                }
                Err(difference) => {
                    tracing::error!(%difference, "the draft model's vocabulary is not the target's: not used");
                    self.metrics.draft.availability("neural", Some("vocabulary"));
                }
            }
        }
        let ngram = match self.settings.drafter {
            DrafterChoice::Auto | DrafterChoice::Ngram => true,
            DrafterChoice::Neural | DrafterChoice::Off => false,
        };
        if ngram {
            self.metrics.draft.availability("ngram", None);
            factory.ngram = Some((self.settings.ngram_min, self.settings.ngram_max));
        }
        factory
    }

    async fn readiness(&self) -> Result<Readiness, UpstreamError> {
        if self.settings.drafter == DrafterChoice::Off {
            return Ok(Readiness::ForwardOnly("no_drafter"));
        }
        let (tokenizer, capabilities) = match examine(&self.upstream, &self.settings).await? {
            Examined::Known { tokenizer, capabilities } => (tokenizer, capabilities),
            Examined::NoTokenizer(reason) => {
                tracing::error!(%reason, "no usable tokenizer: forwarding everything");
                return Ok(Readiness::ForwardOnly("tokenizer"));
            }
        };
        let drafters = match &self.drafters {
            Some(drafters) => Arc::clone(drafters),
            None => {
                let factory = self.factory(&tokenizer).await;
                if factory.neural.is_none() && factory.ngram.is_none() && self.past.is_none() {
                    return Ok(Readiness::ForwardOnly("no_drafter"));
                }
                Arc::new(factory)
            }
        };
        self.control.set_version(&capabilities.weight_version);
        tracing::info!(
            model = %capabilities.model,
            version = capabilities.version.as_deref().unwrap_or("unknown"),
            generate = ?capabilities.generate,
            raw_logprobs = capabilities.raw_logprobs,
            max_logprobs = capabilities.max_logprobs,
            defaults_known = capabilities.defaults.is_some(),
            "ready"
        );
        Ok(Readiness::Ready(Engine::new(EngineSettings {
            upstream: self.upstream.clone(),
            capabilities: Arc::from(capabilities),
            tokenizer,
            drafters,
            policy: self.policy,
            rule: Arc::clone(&self.rule),
            past: self.past.clone(),
            control: self.control.clone(),
            metrics: self.metrics.clone(),
        })))
    }
}

impl EngineBuilder for Setup {
    fn build(&self) -> BuildFuture<'_> {
        Box::pin(self.readiness())
    }
}

/// What is known of a server.
pub enum Examined {
    /// All there is to know.
    Known {
        /// Its tokenizer.
        tokenizer: Tokenizer,
        /// What it can do.
        capabilities: Box<Capabilities>,
    },
    /// Without its tokenizer nothing can be turned into text.
    NoTokenizer(String),
}

/// Finds the server's tokenizer and what the server can do.
///
/// # Errors
/// When the server cannot be reached or refuses ordinary requests.
pub async fn examine(upstream: &Upstream, settings: &TargetSettings) -> Result<Examined, UpstreamError> {
    let model = upstream.served_model().await?;
    let tokenizer = match tokenizer::find(upstream, settings, &model).await? {
        Ok(tokenizer) => tokenizer,
        Err(reason) => return Ok(Examined::NoTokenizer(reason)),
    };
    let mut capabilities = upstream.probe(&tokenizer.added_tokens()).await?;
    if settings.assume_neutral_defaults && capabilities.defaults.is_none() {
        capabilities.defaults = Some(SamplingFields::neutral());
    }
    Ok(Examined::Known { tokenizer, capabilities: Box::new(capabilities) })
}
