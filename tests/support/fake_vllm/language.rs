//! The language the fake speaks: a Markov chain of order two whose probabilities are a function of a hash, so that a
//! test can compute p for any context without asking the server.

use super::distribution::{process, softmax};
use super::params::SamplingParams;

/// The version a server reports before anyone has named another.
pub const FIRST_WEIGHTS: &str = "default";

/// A target model: the next token's logits depend on the last two ids and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageModel {
    /// Tokens in the vocabulary; the last of them ends a sequence.
    pub vocab: usize,
    /// What every logit is hashed from.
    pub seed: u64,
    /// Standard deviation of the logits: 0 is uniform, 2 resembles prose, 6 is almost deterministic.
    pub sharpness: f64,
    /// Added to the logit of the end-of-sequence token; −30 makes sequences endless.
    pub eos_bias: f64,
    /// How much of what comes next is decided by how far the text has come rather than by its last two ids, from 0 to 1 (of
    /// the logits' variance). Texts with a plan say the same again soon after they have parted, as an answer does that found
    /// another word; without one they have nothing more to do with each other.
    pub plan: f64,
    /// Rounds logits to multiples of this, so that exact ties occur.
    pub quantum: Option<f64>,
    /// How far another weight version's logits lie from the first's, as a fraction of `sharpness`: what one step of
    /// training changes.
    pub drift: f64,
    /// Label of the weights. Every label but the first moves the logits its own way.
    pub weights: String,
}

impl Default for LanguageModel {
    fn default() -> Self {
        Self {
            vocab: 64,
            seed: 7,
            sharpness: 2.0,
            eos_bias: 0.0,
            plan: 0.0,
            quantum: None,
            drift: 0.3,
            weights: FIRST_WEIGHTS.to_owned(),
        }
    }
}

impl LanguageModel {
    /// The id that ends a sequence.
    #[must_use]
    pub fn eos(&self) -> u32 {
        u32::try_from(self.vocab - 1).unwrap()
    }

    /// The same model after an update of its weights.
    #[must_use]
    pub fn with_weights(&self, version: &str) -> Self {
        Self { weights: version.to_owned(), ..self.clone() }
    }

    /// Raw logits of the token after `context`, one for each id.
    #[must_use]
    pub fn logits(&self, context: &[u32]) -> Vec<f64> {
        let mut last = context.iter().rev().map(|&id| u64::from(id));
        let state = [last.next().unwrap_or(u64::MAX), last.next().unwrap_or(u64::MAX)];
        let base = state.iter().fold(mix(self.seed), |hash, &id| mix(hash ^ id));
        let update = self.weights.bytes().fold(base, |hash, byte| mix(hash ^ u64::from(byte)));
        let moved = self.weights != FIRST_WEIGHTS;
        let (by_ids, by_plan) = ((1.0 - self.plan).sqrt(), self.plan.sqrt());
        let place = self.place(context);
        (0..self.vocab as u64)
            .map(|id| {
                let mut logit = self.sharpness * by_ids * normal(mix(base ^ mix(id)));
                if self.plan > 0.0 {
                    logit += self.sharpness * by_plan * normal(mix(place ^ mix(id)));
                }
                if moved {
                    logit += self.sharpness * self.drift * normal(mix(update ^ mix(id)));
                }
                if id == u64::from(self.eos()) {
                    logit += self.eos_bias;
                }
                // A real server's logits are 32-bit at best.
                f64::from(self.quantum.map_or(logit, |quantum| (logit / quantum).round() * quantum) as f32)
            })
            .collect()
    }

    /// How far a text has come: its length, and which text it is by its first ids.
    fn place(&self, context: &[u32]) -> u64 {
        let text = context.iter().take(4).fold(mix(self.seed + 1), |hash, &id| mix(hash ^ u64::from(id)));
        mix(text ^ context.len() as u64)
    }

    /// The raw distribution after `context`: temperature 1, nothing truncated. What prompt logprobs report.
    #[must_use]
    pub fn raw(&self, context: &[u32]) -> Vec<f64> {
        softmax(&self.logits(context))
    }

    /// The distribution the server samples from after `context` when all of it is prompt.
    #[must_use]
    pub fn distribution(&self, context: &[u32], params: &SamplingParams) -> Vec<f64> {
        self.distribution_at(context, &[], params)
    }

    /// The distribution the server samples from after `prompt` and the `output` it has generated so far. Where the two
    /// part matters to penalties and `min_tokens` alone. The stop ids that `min_tokens` holds back are the end of
    /// sequence and the request's own.
    #[must_use]
    pub fn distribution_at(&self, prompt: &[u32], output: &[u32], params: &SamplingParams) -> Vec<f64> {
        let context = [prompt, output].concat();
        softmax(&process(self.logits(&context), prompt, output, params, &[self.eos()]).sampled)
    }

    /// Probability of each whole continuation of up to `len` tokens, `(tokens, p)`, ending early at the end of sequence:
    /// the law that a rollout of `len` tokens must follow. Grows as vocab^len.
    #[must_use]
    pub fn continuations(&self, prompt: &[u32], len: usize, params: &SamplingParams) -> Vec<(Vec<u32>, f64)> {
        let mut open = vec![(Vec::new(), 1.0)];
        let mut done = Vec::new();
        for _ in 0..len {
            let mut next = Vec::new();
            for (tokens, p) in open {
                for (id, q) in (0u32..).zip(self.distribution_at(prompt, &tokens, params)) {
                    if q > 0.0 {
                        let longer = [tokens.as_slice(), &[id]].concat();
                        if id == self.eos() { done.push((longer, p * q)) } else { next.push((longer, p * q)) }
                    }
                }
            }
            open = next;
        }
        done.extend(open);
        done
    }
}

/// SplitMix64's finaliser: neighbouring inputs give unrelated outputs.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A standard normal deviate from a hash, by Box and Muller.
fn normal(hash: u64) -> f64 {
    let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    (-2.0 * unit(hash).ln()).sqrt() * (std::f64::consts::TAU * unit(mix(hash))).cos()
}
