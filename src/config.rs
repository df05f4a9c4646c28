//! Every setting, parsed once into types.

mod door;
mod history;
mod limits;
mod telling;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

pub use door::{DoorSettings, UpstreamTlsSettings};
pub use limits::LimitSettings;
pub use telling::TellingSettings;

pub use self::history::HistorySettings;
use crate::model::{CudaOptions, DEFAULT_CACHE_MIB, DeviceChoice, ModelOptions, Precision};
use crate::rollout::controller::{Policy, Speculate};
use crate::secret::Secret;
use crate::upstream::UpstreamOptions;
use crate::verify::Strategy;

/// Settings of `sidedraft serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    /// Where to listen; 0.0.0.0 lets others in than this machine. Port 0 takes a free one; the address is printed as a line
    /// of JSON on standard output
    #[arg(long, env = "SIDEDRAFT_LISTEN", default_value = "127.0.0.1:8001", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetSettings,

    /// When to speculate: where measurements say that it is faster than decoding, wherever there is a draft, or never
    #[arg(long, env = "SIDEDRAFT_SPECULATE", default_value = "auto", value_enum)]
    pub speculate: SpeculateChoice,

    /// Most tokens that the draft model drafts in a round; with --speculate always, how many exactly
    #[arg(long, env = "SIDEDRAFT_DRAFT_TOKENS", default_value_t = 16, value_parser = draft_tokens, value_name = "K")]
    pub draft_tokens: usize,

    /// Most tokens of a proposal that repeats a piece of the context; with --speculate always, --draft-tokens holds
    #[arg(long, env = "SIDEDRAFT_LONGEST_MATCH", default_value_t = 64, value_parser = positive, value_name = "TOKENS")]
    pub longest_match: usize,

    /// Log a line for each switch between decoding and speculation, with the figures that decided it
    #[arg(long, env = "SIDEDRAFT_EXPLAIN")]
    pub explain: bool,

    /// How to verify drafts
    #[arg(long, env = "SIDEDRAFT_STRATEGY", default_value = "auto", value_enum)]
    pub strategy: StrategyChoice,

    /// With --speculate always: tokens to decode plainly when no drafter has a proposal, before asking again
    #[arg(long, env = "SIDEDRAFT_DECODE_BURST", default_value_t = 16, value_parser = positive, value_name = "TOKENS")]
    pub decode_burst: usize,

    /// Speculate requests that bring a seed. What comes is distributed as the server's own, but is not the one sample
    /// that the seed would give there; without this flag they are forwarded
    #[arg(long, env = "SIDEDRAFT_SPECULATE_SEEDED")]
    pub speculate_seeded: bool,

    /// Seconds that running requests get to finish after SIGTERM
    #[arg(long, env = "SIDEDRAFT_DRAIN_TIMEOUT", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitSettings,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub door: DoorSettings,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub telling: TellingSettings,
}

/// The server and the drafters: what `serve` and `doctor` have in common.
#[derive(Debug, Clone, Args)]
pub struct TargetSettings {
    /// The vLLM server, http://host:port
    #[arg(long, env = "SIDEDRAFT_UPSTREAM", value_name = "URL")]
    pub upstream: String,

    /// API key for the sidecar's own calls: probe, health, metrics. Clients' keys are passed on for their requests
    #[arg(long, env = "SIDEDRAFT_UPSTREAM_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub upstream_api_key: Option<Secret>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub upstream_tls: UpstreamTlsSettings,

    /// Seconds to wait for a connection to the server
    #[arg(long, env = "SIDEDRAFT_CONNECT_TIMEOUT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub connect_timeout: Duration,

    /// Seconds that the server may stay silent within one reply
    #[arg(long, env = "SIDEDRAFT_READ_TIMEOUT", default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    pub read_timeout: Duration,

    /// How often a call that failed for a passing reason is made again
    #[arg(long, env = "SIDEDRAFT_RETRIES", default_value_t = 2, value_name = "COUNT")]
    pub retries: u32,

    /// The draft model: a Hugging Face folder or a GGUF file of a Llama, Qwen2 or Qwen3
    #[arg(long, env = "SIDEDRAFT_DRAFT_MODEL", value_name = "PATH")]
    pub draft_model: Option<PathBuf>,

    /// What runs the draft model: the CPU, a GPU, or with auto a GPU where there is one that can be used and otherwise the
    /// CPU. Of several GPUs it is the first that CUDA_VISIBLE_DEVICES names
    #[arg(long, env = "SIDEDRAFT_DRAFT_DEVICE", default_value = "cpu", value_enum)]
    pub draft_device: DraftDeviceChoice,

    /// A folder with NVRTC's libraries, which compile the GPU's kernels, where the system does not find them: that of the
    /// server's Python packages, .../site-packages/nvidia/cu13/lib
    #[arg(long, env = "SIDEDRAFT_CUDA_LIBRARIES", value_name = "FOLDER")]
    pub cuda_libraries: Option<PathBuf>,

    /// How the CPU holds the draft model's weights [default: q8_0]. A GPU holds them in bfloat16
    #[arg(long, env = "SIDEDRAFT_DRAFT_PRECISION", value_enum)]
    pub draft_precision: Option<PrecisionChoice>,

    /// Threads of the draft model on the CPU [default: 1]
    #[arg(long, env = "SIDEDRAFT_DRAFT_THREADS", value_parser = positive, value_name = "COUNT")]
    pub draft_threads: Option<usize>,

    /// MiB for the draft model's keys and values. Beyond it, those of the rollout that did not draft for longest are dropped
    /// and computed again when it returns; a context that is longer than all of it is not drafted for. On a GPU it is taken
    /// at once, or what is free if that is less
    #[arg(long, env = "SIDEDRAFT_DRAFT_CACHE_MIB", default_value_t = DEFAULT_CACHE_MIB, value_parser = positive,
          value_name = "MIB")]
    pub draft_cache_mib: usize,

    /// Who drafts: n-grams and, if there is one, the draft model, whichever is expected to bring more; or as said
    #[arg(long, env = "SIDEDRAFT_DRAFTER", default_value = "auto", value_enum)]
    pub drafter: DrafterChoice,

    /// The shortest repeated n-gram to draft from
    #[arg(long, env = "SIDEDRAFT_NGRAM_MIN", default_value_t = 2, value_parser = positive, value_name = "TOKENS")]
    pub ngram_min: usize,

    /// The longest n-gram to look for
    #[arg(long, env = "SIDEDRAFT_NGRAM_MAX", default_value_t = 4, value_parser = positive, value_name = "TOKENS")]
    pub ngram_max: usize,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub history: HistorySettings,

    /// The server's tokenizer.json, or a folder that holds it; by default the draft model's, or the served model's
    /// where its folder can be read here. It is compared with the server's own before use
    #[arg(long, env = "SIDEDRAFT_TOKENIZER", value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,

    /// Take vLLM's neutral values for sampling parameters that a request leaves out, where the server does not tell
    /// its own defaults. Right for servers started with --generation-config vllm, and for models without one
    #[arg(long, env = "SIDEDRAFT_ASSUME_NEUTRAL_DEFAULTS")]
    pub assume_neutral_defaults: bool,
}

/// Who drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrafterChoice {
    /// N-grams and, if there is one, the draft model.
    Auto,
    /// The draft model.
    Neural,
    /// Prompt lookup.
    Ngram,
    /// Nobody: everything is forwarded.
    Off,
}

/// When to speculate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpeculateChoice {
    /// Where it is expected to be faster than decoding.
    Auto,
    /// Wherever there is a draft, with a fixed length.
    Always,
    /// Never: rollouts are decoded.
    Never,
}

/// How to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyChoice {
    /// The best that the server has.
    Auto,
    /// Prompt log-probabilities of the uncached suffix (/inference/v1/generate).
    CachedSuffix,
    /// Prompt log-probabilities of the whole context (/v1/completions).
    PromptLogprobs,
    /// A sample after each draft (/v1/completions).
    FanOut,
}

/// What runs the draft model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DraftDeviceChoice {
    /// A GPU where there is one that can be used, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU; one that cannot be used is an error.
    Cuda,
}

/// How the CPU holds weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// 8-bit blocks.
    #[value(name = "q8_0")]
    Q8_0,
    /// 32-bit floats.
    F32,
}

impl From<DraftDeviceChoice> for DeviceChoice {
    fn from(choice: DraftDeviceChoice) -> Self {
        match choice {
            DraftDeviceChoice::Auto => Self::Auto,
            DraftDeviceChoice::Cpu => Self::Cpu,
            DraftDeviceChoice::Cuda => Self::Cuda,
        }
    }
}

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Q8_0 => Self::Q8_0,
            PrecisionChoice::F32 => Self::F32,
        }
    }
}

impl TargetSettings {
    /// How to reach the server.
    #[must_use]
    pub fn upstream_options(&self) -> UpstreamOptions {
        UpstreamOptions {
            url: self.upstream.clone(),
            api_key: self.upstream_api_key.clone(),
            tls: self.upstream_tls.tls(),
            connect_timeout: self.connect_timeout,
            read_timeout: self.read_timeout,
            retries: self.retries,
        }
    }

    /// How to hold and run the draft model.
    #[must_use]
    pub fn model_options(&self) -> ModelOptions {
        let default = ModelOptions::default();
        ModelOptions {
            device: self.draft_device.into(),
            cuda: CudaOptions { libraries: self.cuda_libraries.clone(), ..default.cuda },
            precision: self.draft_precision.map_or(default.precision, Precision::from),
            threads: self.draft_threads.unwrap_or(default.threads),
            cache_bytes: self.draft_cache_mib.saturating_mul(1 << 20),
            ..default
        }
    }

    /// The draft model that drafts, if one does.
    #[must_use]
    pub fn drafting_model(&self) -> Option<&Path> {
        let wanted = matches!(self.drafter, DrafterChoice::Auto | DrafterChoice::Neural);
        self.draft_model.as_deref().filter(|_| wanted)
    }

    /// Settings that contradict each other, in one line.
    ///
    /// # Errors
    /// The line.
    pub fn check(&self) -> Result<(), String> {
        if self.drafter == DrafterChoice::Neural && self.draft_model.is_none() {
            return Err("--drafter neural needs --draft-model".to_owned());
        }
        if self.draft_device == DraftDeviceChoice::Cuda {
            if self.draft_model.is_none() {
                return Err("--draft-device cuda needs --draft-model".to_owned());
            }
            for (given, flag) in [
                (self.draft_precision.is_some(), "--draft-precision"),
                (self.draft_threads.is_some(), "--draft-threads"),
            ] {
                if given {
                    return Err(format!("{flag} is about the CPU, and --draft-device is cuda"));
                }
            }
        }
        if self.upstream_tls.is_given() && !self.upstream.starts_with("https://") {
            return Err("--upstream-ca and --upstream-cert are about TLS, and --upstream is not https".to_owned());
        }
        self.history.check()?;
        if self.ngram_min > self.ngram_max {
            return Err(format!("--ngram-min {} is larger than --ngram-max {}", self.ngram_min, self.ngram_max));
        }
        Ok(())
    }
}

impl ServeSettings {
    /// When to draft how much.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let strategy = match self.strategy {
            StrategyChoice::Auto => None,
            StrategyChoice::CachedSuffix => Some(Strategy::CachedSuffix),
            StrategyChoice::PromptLogprobs => Some(Strategy::PromptLogprobs),
            StrategyChoice::FanOut => Some(Strategy::FanOut),
        };
        let speculate = match self.speculate {
            SpeculateChoice::Auto => Speculate::Auto,
            SpeculateChoice::Always => Speculate::Always,
            SpeculateChoice::Never => Speculate::Never,
        };
        Policy {
            speculate,
            draft_tokens: self.draft_tokens,
            longest_match: self.longest_match,
            longest_replay: self.target.history.longest_replay,
            explain: self.explain,
            strategy,
            decode_burst: self.decode_burst,
            speculate_seeded: self.speculate_seeded,
            ..Policy::default()
        }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

fn draft_tokens(text: &str) -> Result<usize, String> {
    /// A verification of more would cost more than it could ever bring.
    const MOST: usize = 64;
    positive(text).and_then(|count| if count <= MOST { Ok(count) } else { Err(format!("must be at most {MOST}")) })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
