//! One sequence from its prompt to its end: sampled tokens, their rows, its text, and why it stopped.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cache::Blocks;
use super::distribution::{process, softmax};
use super::engine::{Adapter, Engine};
use super::language::LanguageModel;
use super::logprobs::{Row, sample_scores};
use super::ordered::{Json, obj};
use super::params::SamplingParams;
use super::stepper::{CachedPrompt, Newcomer};
use super::tokenizer::TextStream;

/// Why a sequence ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// It ran out of tokens.
    Length,
    /// The tokenizer's end of sequence.
    Eos,
    /// Another stop id.
    StopToken(u32),
    /// A stop string.
    StopString(String),
    /// Somebody other than its client ended it.
    Abort,
}

impl Finish {
    /// `finish_reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Eos | Self::StopToken(_) | Self::StopString(_) => "stop",
        }
    }

    /// `stop_reason`.
    #[must_use]
    pub fn stop_reason(&self) -> serde_json::Value {
        match self {
            Self::Length | Self::Eos | Self::Abort => serde_json::Value::Null,
            Self::StopToken(id) => (*id).into(),
            Self::StopString(stop) => stop.as_str().into(),
        }
    }
}

/// A request's sequence. `step` until `finish` is set.
pub struct Sequence {
    engine: Arc<Engine>,
    /// What it continues.
    pub prompt: Vec<u32>,
    /// What it generated.
    pub output: Vec<u32>,
    /// How it is sampled.
    pub params: SamplingParams,
    /// Prompt and output but for the last token, which is computed in the next step.
    blocks: Blocks,
    /// The adapter that computes it instead of the base model's weights.
    adapter: Option<Adapter>,
    /// Prompt tokens the prefix cache served; 0 until the first step.
    pub cached: usize,
    /// What of the prompt the engine found cached when it began to compute it; none where it never waits for a step.
    pub admitted: Option<usize>,
    /// Rows of the prompt, where they were asked for and it has been computed.
    pub prompt_rows: Option<Vec<Option<Row>>>,
    /// Scores of the ids that were given, where they were and could be computed.
    pub given_ids: Option<String>,
    /// A row for each generated token, where logprobs were asked for.
    pub rows: Vec<Row>,
    /// The text so far, without the stop string unless it was asked for.
    pub text: String,
    /// Set when there is nothing more to come.
    pub finish: Option<Finish>,
    /// (version, first output token) for each run of tokens that one version of the weights sampled.
    versions: Vec<(String, usize)>,
    stream: TextStream,
    own_sampler: Option<StdRng>,
}

impl Sequence {
    /// A sequence that has not been computed at all yet.
    #[must_use]
    pub fn start(
        engine: &Arc<Engine>,
        prompt: Vec<u32>,
        params: SamplingParams,
        salt: Option<String>,
        adapter: Option<Adapter>,
    ) -> Self {
        // An adapter's blocks are its own.
        let salt = adapter
            .as_ref()
            .map_or(salt.clone(), |adapter| Some(format!("{}\n{}", adapter.name, salt.unwrap_or_default())));
        Self {
            engine: Arc::clone(engine),
            blocks: Blocks::of(engine.config.block_size, salt.as_deref(), &prompt),
            cached: 0,
            admitted: None,
            prompt_rows: None,
            given_ids: None,
            stream: TextStream::after(&prompt, params.skip_special_tokens),
            // Reproducible for a seed, as vLLM's per-request generators are; not the same numbers.
            own_sampler: params.seed.map(|seed| StdRng::seed_from_u64(seed.cast_unsigned())),
            output: Vec::new(),
            rows: Vec::new(),
            text: String::new(),
            finish: None,
            versions: Vec::new(),
            prompt,
            params,
            adapter,
        }
    }

    /// Generates one token, after looking the prompt up in the prefix cache and computing the rest of it.
    pub fn step(&mut self) {
        let (language, version) = self.engine.weights_for(self.adapter.as_ref());
        if self.output.is_empty() {
            self.prefill(&language);
        }
        if self.versions.last().is_none_or(|(last, _)| *last != version) {
            self.versions.push((version, self.output.len()));
        }
        let context = [self.prompt.as_slice(), &self.output].concat();
        let raw = language.logits(&context);
        let processed = process(raw.clone(), &self.prompt, &self.output, &self.params, &self.engine.config.eos_ids());
        let token = self.sample(&softmax(&processed.sampled));
        if let Some(count) = self.params.logprobs {
            let scores = sample_scores(self.engine.config.logprobs_mode, &raw, &processed);
            self.rows.push(Row::of(&scores, token, count));
        }
        // The sampled token itself is computed in the next step, so it is not in the cache yet.
        self.engine.remember(&mut self.blocks, context.len());
        self.blocks.push(token);
        self.output.push(token);
        self.finish = self.stop_by_token(token);
        self.add_text(token);
    }

    /// The sequence as the step loop sees it.
    #[must_use]
    pub fn newcomer(&self) -> Newcomer {
        let (engine, blocks, params) = (Arc::clone(&self.engine), self.blocks.clone(), self.params.clone());
        let most = self.params.max_tokens.min(self.engine.config.max_model_len.saturating_sub(self.prompt.len()));
        Newcomer { prompt: Box::new(Lookup { engine, blocks, params }), length: self.prompt.len(), most: most.max(1) }
    }

    fn prefill(&mut self, language: &LanguageModel) {
        self.cached = self.admitted.unwrap_or_else(|| self.engine.cached(&self.blocks, &self.params));
        self.engine.remember(&mut self.blocks, self.prompt.len());
        let count = self.params.prompt_logprobs;
        self.prompt_rows = count.map(|count| self.engine.prompt_rows(language, &self.prompt, self.cached, count));
        let given = &self.params.given_ids;
        self.given_ids = given.scores(&self.engine.config, language, &self.prompt, self.cached);
    }

    /// Prompt tokens that this sequence has put into the prefix cache (`num_cache_creation_tokens`).
    #[must_use]
    pub fn cache_created(&self) -> usize {
        let block = self.engine.config.block_size;
        (self.prompt.len() / block * block).saturating_sub(self.cached)
    }

    /// Bytes of text that may be shown: what could be the beginning of a stop string is held back.
    #[must_use]
    pub fn visible(&self) -> usize {
        if self.finish.is_some() || self.params.include_stop_str_in_output {
            return self.text.len();
        }
        let longest = self.params.stop.iter().map(|stop| stop.chars().count()).max();
        let hold = longest.map_or(0, |longest| longest - 1);
        self.text.char_indices().rev().take(hold).last().map_or(self.text.len(), |(at, _)| at)
    }

    /// `weight_versions`: spans of the output by the weights that sampled them.
    #[must_use]
    pub fn weight_versions(&self) -> Json {
        let ends = self.versions.iter().skip(1).map(|(_, start)| *start).chain([self.output.len()]);
        let spans = self.versions.iter().zip(ends);
        spans.map(|((version, start), end)| obj! {"version": version.as_str(), "start": *start, "end": end}).collect()
    }

    fn sample(&mut self, probabilities: &[f64]) -> u32 {
        let mut left: f64 = self.own_sampler.as_mut().map_or_else(|| self.engine.draw(), Rng::random);
        let mut last_possible = 0;
        for (id, &p) in (0u32..).zip(probabilities) {
            if p > 0.0 {
                last_possible = id;
                if left < p {
                    return id;
                }
                left -= p;
            }
        }
        // Rounding can leave a remainder after the last id.
        last_possible
    }

    fn stop_by_token(&self, token: u32) -> Option<Finish> {
        let config = &self.engine.config;
        let ends = config.eos_ids();
        if token == ends[0] && !self.params.ignore_eos {
            return Some(Finish::Eos);
        }
        let extra_end = ends.contains(&token) && !self.params.ignore_eos;
        if extra_end || self.params.stop_token_ids.contains(&token) {
            return Some(Finish::StopToken(token));
        }
        let full = self.prompt.len() + self.output.len() >= config.max_model_len;
        (full || self.output.len() >= self.params.max_tokens).then_some(Finish::Length)
    }

    /// Adds the text of `token` and looks for a stop string in what it added. A token that ended the sequence is text
    /// only on request.
    fn add_text(&mut self, token: u32) {
        let stopped = matches!(self.finish, Some(Finish::Eos | Finish::StopToken(_)));
        if !self.params.detokenize || (stopped && !self.params.include_stop_str_in_output) {
            return;
        }
        let added = self.stream.push(&self.engine.codec, token);
        let old = self.text.len();
        self.text.push_str(&added);
        if added.is_empty() || self.output.len() <= self.params.min_tokens {
            return;
        }
        // The match must end in the new text; of several, the one that is complete first counts.
        let found = self.params.stop.iter().filter_map(|stop| {
            let from = next_boundary(&self.text, (old + 1).saturating_sub(stop.len()));
            let end = from + self.text[from..].find(stop.as_str())? + stop.len();
            (end > old).then(|| (end, stop.clone()))
        });
        if let Some((end, stop)) = found.min_by_key(|(end, _)| *end) {
            let keep = if self.params.include_stop_str_in_output { end } else { end - stop.len() };
            self.text.truncate(keep);
            self.finish = Some(Finish::StopString(stop));
        }
    }
}

/// A prompt that waits to be computed.
struct Lookup {
    engine: Arc<Engine>,
    blocks: Blocks,
    params: SamplingParams,
}

impl CachedPrompt for Lookup {
    fn cached(&self) -> usize {
        self.engine.cached(&self.blocks, &self.params)
    }

    fn computed(&mut self, upto: usize) {
        self.engine.remember(&mut self.blocks, upto);
    }
}

fn next_boundary(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}
