//! What kind of vLLM the fake is: its version, its runner, its command line.

use std::time::Duration;

use super::language::LanguageModel;
use super::pace::Costs;

/// A vLLM release, ordered as releases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The release whose shapes the fake copies.
    pub const CURRENT: Self = Self(0, 32, 0);
    /// The first with `/inference/v1/generate`.
    pub const GENERATE: Self = Self(0, 11, 1);
    /// The first that stamps replies with weight versions.
    pub const WEIGHT_VERSIONS: Self = Self(0, 28, 0);
    /// The first that hides `/inference/v1/generate` behind `--enable-scale-out`.
    pub const SCALE_OUT: Self = Self(0, 30, 0);
    /// The first that scores ids that a request names.
    pub const GIVEN_IDS: Self = Self(0, 31, 0);

    /// Release `major.minor.0`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self(major, minor, 0)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Which model runner serves: they differ in the rows of a prompt that the prefix cache served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Returns a row for every position; those that were not computed hold [`Garbage`].
    V1,
    /// Returns the computed rows alone, so the list is shorter than the prompt.
    V2,
}

/// What the V1 runner's uninitialised memory happens to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Fresh pages: logprob 0 of token 0.
    Zeros,
    /// What an earlier request left at the same positions; plausible, and wrong.
    Stale,
    /// Not a number, for which the server answers 400.
    Nan,
}

/// `--logprobs-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogprobsMode {
    /// log softmax of the raw logits: the default.
    RawLogprobs,
    /// The raw logits.
    RawLogits,
    /// log softmax after every sampling parameter. Prompt rows stay raw.
    ProcessedLogprobs,
    /// Logits after every sampling parameter. Prompt rows stay raw.
    ProcessedLogits,
}

/// Which HTTP server is in front of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontend {
    /// FastAPI.
    Python,
    /// `vllm-rs`: one prompt and one choice a request, no usage in generate replies, errors of another shape.
    Rust,
}

/// What `generation_config.json` sets for requests that do not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationDefaults {
    /// Applied by `/v1/completions` and chat, not by `/inference/v1/generate`.
    pub temperature: Option<f64>,
    /// As `temperature`.
    pub top_p: Option<f64>,
    /// As `temperature`.
    pub top_k: Option<i64>,
    /// As `temperature`.
    pub min_p: Option<f64>,
    /// As `temperature`.
    pub repetition_penalty: Option<f64>,
    /// Ids that end a sequence besides the tokenizer's own. Every endpoint honours them: the engine adds them.
    pub extra_eos: Vec<u32>,
    /// As `extra_eos`, but the tokenizer does not know them for special: their text is shown.
    pub plain_eos: Vec<u32>,
    /// `max_new_tokens`: of requests that do not say how many.
    pub max_new_tokens: Option<i64>,
}

/// The settings of one fake server. Start from [`FakeConfig::default`] and change what the test is about.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// The target model.
    pub language: LanguageModel,
    /// Name under which the model is served.
    pub model_name: String,
    /// Release to imitate.
    pub version: Version,
    /// Server in front of the engine.
    pub frontend: Frontend,
    /// Model runner.
    pub runner: Runner,
    /// What the V1 runner returns for rows it did not compute.
    pub garbage: Garbage,
    /// `--enable-scale-out`.
    pub scale_out: bool,
    /// `--enable-prompt-tokens-details`.
    pub prompt_tokens_details: bool,
    /// `--block-size`.
    pub block_size: usize,
    /// `--enable-prefix-caching`.
    pub prefix_caching: bool,
    /// `--max-model-len`.
    pub max_model_len: usize,
    /// `--max-logprobs`; −1 for the whole vocabulary.
    pub max_logprobs: i64,
    /// `--logprobs-mode`.
    pub logprobs_mode: LogprobsMode,
    /// `--api-key`.
    pub api_key: Option<String>,
    /// `VLLM_SERVER_DEV_MODE=1`: the routes that control training.
    pub dev_mode: bool,
    /// `generation_config.json`.
    pub defaults: GenerationDefaults,
    /// `max_new_tokens` of `--override-generation-config`: no request gets more.
    pub override_max_tokens: Option<i64>,
    /// `--enable-force-include-usage`: usage in every chunk of a stream, asked for or not. Not on generate.
    pub force_include_usage: bool,
    /// `--reasoning-parser deepseek_r1`. The tokenizer then has `<think>` and `</think>`.
    pub reasoning_parser: bool,
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`: the routes that load adapters.
    pub runtime_lora: bool,
    /// Refuses a priority other than 0, as releases before 0.32 did without `--scheduling-policy priority`.
    pub refuse_priority: bool,
    /// Tokens in one chunk of a stream. The first and the last chunk never wait.
    pub stream_interval: usize,
    /// Waited once before a request is answered, on tokio's clock.
    pub request_latency: Duration,
    /// Waited before each generated token, on tokio's clock.
    pub token_latency: Duration,
    /// Keeps every request for the test to look at.
    pub records: bool,
    /// What a GPU server's work would take; none for a server that takes no time but the latencies.
    pub costs: Option<Costs>,
    /// Seed of the server's sampler.
    pub sampler_seed: u64,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self {
            language: LanguageModel::default(),
            model_name: "fake-model".to_owned(),
            version: Version::CURRENT,
            frontend: Frontend::Python,
            runner: Runner::V2,
            garbage: Garbage::Zeros,
            scale_out: true,
            prompt_tokens_details: true,
            block_size: 16,
            prefix_caching: true,
            max_model_len: 4096,
            max_logprobs: 20,
            logprobs_mode: LogprobsMode::RawLogprobs,
            api_key: None,
            dev_mode: true,
            defaults: GenerationDefaults::default(),
            override_max_tokens: None,
            force_include_usage: false,
            reasoning_parser: false,
            runtime_lora: true,
            refuse_priority: false,
            stream_interval: 1,
            request_latency: Duration::ZERO,
            token_latency: Duration::ZERO,
            records: true,
            costs: None,
            sampler_seed: 1,
        }
    }
}

impl FakeConfig {
    /// Whether replies come from the Rust frontend.
    #[must_use]
    pub fn is_rust_frontend(&self) -> bool {
        self.frontend == Frontend::Rust
    }

    /// The ids of `<think>` and `</think>`, where there is a reasoning parser.
    #[must_use]
    pub fn think_ids(&self) -> Option<(u32, u32)> {
        let eos = self.language.eos();
        self.reasoning_parser.then_some((eos - 2, eos - 1))
    }

    /// The stop ids of every request, the tokenizer's own first.
    #[must_use]
    pub fn eos_ids(&self) -> Vec<u32> {
        let eos = self.language.eos();
        let extra = self.defaults.extra_eos.iter().chain(&self.defaults.plain_eos).copied().filter(|&id| id != eos);
        std::iter::once(eos).chain(extra).collect()
    }
}
