//! The engine: a model, a sampler and a prefix cache, which every request of a server shares.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cache::{Blocks, PrefixCache};
use super::config::{FakeConfig, Garbage, Runner};
use super::language::LanguageModel;
use super::logprobs::{Row, prompt_scores};
use super::pace::Pace;
use super::params::SamplingParams;
use super::scheduler::Scheduler;
use super::tokenizer::TextCodec;

/// What requests share.
pub struct Engine {
    /// The server's settings.
    pub config: FakeConfig,
    /// Its tokenizer.
    pub codec: TextCodec,
    /// Which requests it may work on.
    pub scheduler: Arc<Scheduler>,
    /// How long its work takes; none where it takes no time.
    pub pace: Option<Pace>,
    state: Mutex<State>,
}

/// A LoRA adapter: other weights under another name. Its path says which.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Name requests give as their model.
    pub name: String,
    /// `lora_path`.
    pub path: String,
    language: Arc<LanguageModel>,
}

struct State {
    language: Arc<LanguageModel>,
    /// The label of the weights: what replies call them, whatever they are.
    version: String,
    adapters: Vec<Adapter>,
    /// What is not in the GPU's memory: tags of `/sleep`.
    asleep: BTreeSet<String>,
    sampler: StdRng,
    cache: PrefixCache,
    garbage: Garbage,
    /// Rows of the last request that computed any: what uninitialised memory still holds.
    last_rows: Vec<Option<Row>>,
}

impl Engine {
    /// An idle engine. One with a cost model needs a runtime.
    #[must_use]
    pub fn new(config: FakeConfig) -> Self {
        let state = State {
            language: Arc::new(config.language.clone()),
            version: config.language.weights.clone(),
            adapters: Vec::new(),
            asleep: BTreeSet::new(),
            sampler: StdRng::seed_from_u64(config.sampler_seed),
            cache: PrefixCache::default(),
            garbage: config.garbage,
            last_rows: Vec::new(),
        };
        let scheduler = Arc::new(Scheduler::new());
        let pace = config.costs.as_ref().map(|costs| Pace::start(costs, Arc::clone(&scheduler)));
        Self { codec: TextCodec::of(&config), scheduler, pace, config, state: Mutex::new(state) }
    }

    /// The model that would compute a token now.
    #[must_use]
    pub fn language(&self) -> Arc<LanguageModel> {
        Arc::clone(&self.state().language)
    }

    /// The model after `weights` were loaded.
    #[must_use]
    pub fn language_of(&self, weights: &str) -> LanguageModel {
        self.config.language.with_weights(weights)
    }

    /// What computes a token of a request now, and the label that the token gets. An adapter that has been unloaded
    /// goes on for the requests that use it; one that was loaded in place is new at once.
    #[must_use]
    pub fn weights_for(&self, adapter: Option<&Adapter>) -> (Arc<LanguageModel>, String) {
        let state = self.state();
        let language = adapter.map_or(&state.language, |mine| {
            let loaded = state.adapters.iter().find(|loaded| loaded.name == mine.name);
            &loaded.unwrap_or(mine).language
        });
        (Arc::clone(language), state.version.clone())
    }

    /// Replaces the weights, and nothing else: the label and the prefix cache stay, as in vLLM until
    /// /update_weight_version and /reset_prefix_cache.
    pub fn load_weights(&self, weights: &str) {
        self.state().language = Arc::new(self.language_of(weights));
    }

    /// Replaces the label alone.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut self.state().version);
    }

    /// The label of the weights.
    #[must_use]
    pub fn version(&self) -> String {
        self.state().version.clone()
    }

    /// The adapters, the oldest first.
    #[must_use]
    pub fn adapters(&self) -> Vec<Adapter> {
        self.state().adapters.clone()
    }

    /// The adapter of this name.
    #[must_use]
    pub fn adapter(&self, name: &str) -> Option<Adapter> {
        self.state().adapters.iter().find(|adapter| adapter.name == name).cloned()
    }

    /// Loads an adapter, in the place of one with the same name.
    pub fn load_adapter(&self, name: &str, path: &str) {
        let language = Arc::new(self.language_of(path));
        let adapter = Adapter { name: name.to_owned(), path: path.to_owned(), language };
        let mut state = self.state();
        match state.adapters.iter_mut().find(|loaded| loaded.name == name) {
            Some(loaded) => *loaded = adapter,
            None => state.adapters.push(adapter),
        }
    }

    /// Unloads an adapter.
    pub fn unload_adapter(&self, name: &str) {
        self.state().adapters.retain(|adapter| adapter.name != name);
    }

    /// Puts `tags` to sleep.
    pub fn sleep(&self, tags: &[&str]) {
        self.state().asleep.extend(tags.iter().map(|&tag| tag.to_owned()));
    }

    /// Wakes `tags`, or everything. True if nothing sleeps any more.
    pub fn wake(&self, tags: Option<&[String]>) -> bool {
        let mut state = self.state();
        state.asleep.retain(|asleep| tags.is_some_and(|tags| !tags.contains(asleep)));
        state.asleep.is_empty()
    }

    /// Whether anything sleeps.
    #[must_use]
    pub fn asleep(&self) -> bool {
        !self.state().asleep.is_empty()
    }

    /// Begins anew as another process with the same weights.
    pub fn restart(&self) {
        self.scheduler.resume();
        let mut state = self.state();
        state.cache.clear();
        state.adapters.clear();
        state.asleep.clear();
    }

    /// Forgets every cached block.
    pub fn reset_prefix_cache(&self) {
        self.state().cache.clear();
    }

    /// Changes what the V1 runner returns for rows it did not compute.
    pub fn set_garbage(&self, garbage: Garbage) {
        self.state().garbage = garbage;
    }

    /// A number in [0, 1) from the server's sampler.
    #[must_use]
    pub fn draw(&self) -> f64 {
        self.state().sampler.random()
    }

    /// Leading tokens of `prompt` that `params` lets the cache serve.
    #[must_use]
    pub fn cached(&self, prompt: &Blocks, params: &SamplingParams) -> usize {
        if !self.config.prefix_caching || params.skip_reading_prefix_cache {
            return 0;
        }
        self.state().cache.hit(prompt)
    }

    /// Holds the full blocks of the first `computed` tokens.
    pub fn remember(&self, blocks: &mut Blocks, computed: usize) {
        self.state().cache.hold(blocks, computed);
    }

    /// The prompt logprobs of a prompt whose first `cached` tokens were not computed.
    ///
    /// Row i is the probability of token i and comes from computing token i − 1; row 0 never exists. The V1 runner fills
    /// the rows it lacks from memory that nobody wrote.
    #[must_use]
    pub fn prompt_rows(&self, language: &LanguageModel, prompt: &[u32], cached: usize, count: i64) -> Vec<Option<Row>> {
        let computed = (cached + 1..prompt.len()).map(|i| {
            let scores = prompt_scores(self.config.logprobs_mode, &language.logits(&prompt[..i]));
            Some(Row::of(&scores, prompt[i], count))
        });
        let computed: Vec<_> = computed.collect();

        let mut state = self.state();
        let lost: Vec<Option<Row>> = match self.config.runner {
            Runner::V2 => Vec::new(),
            Runner::V1 => (1..=cached.min(prompt.len() - 1))
                .map(|i| {
                    Some(match state.garbage {
                        Garbage::Zeros => Row::zeros(count),
                        Garbage::Nan => Row::nan(count),
                        Garbage::Stale => {
                            state.last_rows.get(i).cloned().flatten().unwrap_or_else(|| Row::zeros(count))
                        }
                    })
                })
                .collect(),
        };
        let rows: Vec<_> = std::iter::once(None).chain(lost).chain(computed).collect();
        state.last_rows.clone_from(&rows);
        rows
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
