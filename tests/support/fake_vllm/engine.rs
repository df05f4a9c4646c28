//! The engine: a model, a sampler and a prefix cache, which every request of a server shares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cache::PrefixCache;
use super::config::{FakeConfig, Garbage, Runner};
use super::language::LanguageModel;
use super::logprobs::{Row, prompt_scores};
use super::params::SamplingParams;
use super::tokenizer::TextCodec;

/// What requests share.
pub struct Engine {
    /// The server's settings.
    pub config: FakeConfig,
    /// Its tokenizer.
    pub codec: TextCodec,
    state: Mutex<State>,
}

struct State {
    language: Arc<LanguageModel>,
    sampler: StdRng,
    cache: PrefixCache,
    garbage: Garbage,
    /// Rows of the last request that computed any: what uninitialised memory still holds.
    last_rows: Vec<Option<Row>>,
}

impl Engine {
    /// An idle engine.
    #[must_use]
    pub fn new(config: FakeConfig) -> Self {
        let state = State {
            language: Arc::new(config.language.clone()),
            sampler: StdRng::seed_from_u64(config.sampler_seed),
            cache: PrefixCache::new(config.block_size),
            garbage: config.garbage,
            last_rows: Vec::new(),
        };
        Self {
            codec: TextCodec::with_ends(config.language.vocab, &config.defaults.extra_eos),
            config,
            state: Mutex::new(state),
        }
    }

    /// The model that would compute a token now.
    #[must_use]
    pub fn language(&self) -> Arc<LanguageModel> {
        Arc::clone(&self.state().language)
    }

    /// Replaces the weights. The prefix cache stays, as in vLLM until /reset_prefix_cache.
    pub fn set_weights(&self, version: &str) {
        let mut state = self.state();
        state.language = Arc::new(state.language.with_weights(version));
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
    pub fn cached(&self, salt: Option<&str>, prompt: &[u32], params: &SamplingParams) -> usize {
        if !self.config.prefix_caching || params.skip_reading_prefix_cache {
            return 0;
        }
        self.state().cache.hit(salt, prompt)
    }

    /// Holds the full blocks of `tokens`, all of which have been computed.
    pub fn remember(&self, salt: Option<&str>, tokens: &[u32]) {
        self.state().cache.insert(salt, tokens);
    }

    /// The prompt logprobs of a prompt whose first `cached` tokens were not computed.
    ///
    /// Row i is the probability of token i and comes from computing token i − 1; row 0 never exists. The V1 runner fills
    /// the rows it lacks from memory that nobody wrote.
    #[must_use]
    pub fn prompt_rows(&self, prompt: &[u32], cached: usize, count: i64) -> Vec<Option<Row>> {
        let language = self.language();
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
