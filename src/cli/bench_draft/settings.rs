//! Settings of `sidedraft bench draft`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{DraftDeviceChoice, PrecisionChoice};
use crate::model::{Cell, CudaOptions, Device, KnownShape, ModelOptions, ModelSource, Precision};

/// Settings of the measurement of a draft model.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Settings {
    /// The model: a Hugging Face folder or a GGUF file of a Llama, Qwen2 or Qwen3
    #[arg(long, value_name = "PATH", required_unless_present = "shape", conflicts_with = "shape")]
    pub model: Option<PathBuf>,

    /// A known model's shape instead, filled with random weights
    #[arg(long, value_enum)]
    pub shape: Option<Shape>,

    /// What computes, as for serve
    #[arg(long, default_value = "auto", value_enum)]
    pub device: DraftDeviceChoice,

    /// A folder with NVRTC's libraries, as for serve
    #[arg(long, env = "SIDEDRAFT_CUDA_LIBRARIES", value_name = "FOLDER")]
    pub cuda_libraries: Option<PathBuf>,

    /// How the CPU holds the weights
    #[arg(long, default_value = "q8_0", value_enum)]
    pub precision: PrecisionChoice,

    /// Threads on the CPU: of the model, of the copy that it is compared with, and of the reference
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub threads: NonZeroUsize,

    /// MiB for keys and values [default: 4096 on the CPU, what is free on a GPU]
    #[arg(long, value_name = "MIB")]
    pub cache_mib: Option<NonZeroUsize>,

    /// Sequences that draft together [default: 1,4,16,64 on a GPU; 1,4,16 on the CPU]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub batches: Vec<NonZeroUsize>,

    /// Tokens before the first draft [default: 512,4096,16384 on a GPU; 512,4096 on the CPU]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub contexts: Vec<NonZeroUsize>,

    /// Tokens drafted in a row, k [default: 1,4,8 on a GPU; 1,4 on the CPU]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub lengths: Vec<NonZeroUsize>,

    /// How often each cell of the table is measured, or as often as ten seconds allow if that is less
    #[arg(long, value_name = "N", default_value = "20")]
    pub rounds: NonZeroUsize,

    /// Seconds after which no more cells are begun; those are shown as not measured
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub seconds: Duration,

    /// Positions whose logits are compared with those of the CPU in float32, before anything is measured. 0: none
    #[arg(long, value_name = "N", default_value = "256")]
    pub check: usize,

    /// Fail if the logits of a compared position are further off than this, relative to their norm
    #[arg(long, value_name = "ERROR")]
    pub most_error: Option<f64>,

    /// Fail if the likeliest token is the same at a smaller share of the compared positions
    #[arg(long, value_name = "SHARE")]
    pub least_agreement: Option<f64>,

    /// Write everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Known shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Shape {
    /// Qwen3-0.6B.
    #[value(name = "qwen3-0.6b")]
    Qwen3,
    /// Llama-3.2-1B.
    #[value(name = "llama-1b")]
    Llama1b,
    /// SmolLM2-135M.
    #[value(name = "smollm2-135m")]
    SmolLm2,
}

impl Settings {
    /// The model, and what to call it.
    pub(super) fn source(&self) -> (ModelSource, String) {
        let random = |shape, name: &str| (ModelSource::Random(shape), format!("{name}, random weights"));
        match (&self.model, self.shape) {
            (Some(path), _) => (ModelSource::from_path(path), path.display().to_string()),
            (None, Some(Shape::Qwen3)) => random(KnownShape::Qwen3, "Qwen3-0.6B's shape"),
            (None, Some(Shape::Llama1b)) => random(KnownShape::Llama1b, "Llama-3.2-1B's shape"),
            // The command line has one of the two.
            (None, Some(Shape::SmolLm2) | None) => random(KnownShape::SmolLm2, "SmolLM2-135M's shape"),
        }
    }

    pub(super) fn model_options(&self) -> ModelOptions {
        let default = ModelOptions::default();
        ModelOptions {
            device: self.device.into(),
            cuda: CudaOptions { libraries: self.cuda_libraries.clone(), ..default.cuda },
            precision: self.precision.into(),
            threads: self.threads.get(),
            ..default
        }
    }

    /// How the weights are held.
    pub(super) fn held(&self, device: &Device) -> &'static str {
        match (device, Precision::from(self.precision)) {
            (Device::Cuda { .. }, _) => "bfloat16",
            (Device::Cpu, Precision::Q8_0) => "Q8_0",
            (Device::Cpu, Precision::F32) => "float32",
        }
    }

    /// The table's cells, row by row.
    pub(super) fn cells(&self, device: &Device) -> Vec<Cell> {
        let list = |asked: &[NonZeroUsize], gpu: &[usize], cpu: &[usize]| -> Vec<usize> {
            match device {
                _ if !asked.is_empty() => asked.iter().map(|number| number.get()).collect(),
                Device::Cuda { .. } => gpu.to_vec(),
                Device::Cpu => cpu.to_vec(),
            }
        };
        let contexts = list(&self.contexts, &[512, 4096, 16_384], &[512, 4096]);
        let lengths = list(&self.lengths, &[1, 4, 8], &[1, 4]);
        let mut cells = Vec::new();
        for batch in list(&self.batches, &[1, 4, 16, 64], &[1, 4, 16]) {
            for &context in &contexts {
                cells.extend(lengths.iter().map(|&length| Cell { batch, context, length }));
            }
        }
        cells
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
