//! What computes: as the options say, or by what is there.

use std::fmt;

use super::backend::Backend;
use super::cpu::CpuBackend;
use super::cuda;
use super::error::ModelError;
use super::options::ModelOptions;
use super::weights::ModelSource;

/// What is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU where there is one that can be used, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, and nothing else.
    Cuda,
}

/// What computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU.
    Cuda {
        /// As its driver calls it.
        name: String,
    },
}

/// Why the CPU computes where there is a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// In a word, as [`ModelError::gpu_fault`] has it.
    pub reason: &'static str,
    /// In a sentence.
    pub explanation: String,
}

/// A choice that was made.
pub(super) struct Chosen<B> {
    pub(super) backend: B,
    pub(super) device: Device,
    pub(super) fallback: Option<Fallback>,
}

impl Device {
    /// Its kind in a word: `cpu` or `cuda`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda { .. } => "cuda",
        }
    }

    /// The GPU's name, empty for the CPU.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu => "",
            Self::Cuda { name } => name,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("the CPU"),
            Self::Cuda { name } => f.write_str(name),
        }
    }
}

/// Reads a model into the memory of what computes.
///
/// # Errors
/// Those of the CPU's backend or the GPU's, whichever is chosen.
pub(super) fn open(source: &ModelSource, options: &ModelOptions) -> Result<Chosen<Box<dyn Backend>>, ModelError> {
    choose(options.device, || cuda::open(source, options), || Ok(Box::new(CpuBackend::load(source, options)?)))
}

/// Tries what the choice names. Where it names neither, a GPU that is there and cannot be used is told as a fallback; what
/// is no fault of the GPU's would not be mended by the CPU and is an error.
pub(super) fn choose<B>(
    choice: DeviceChoice,
    gpu: impl FnOnce() -> Result<(B, String), ModelError>,
    cpu: impl FnOnce() -> Result<B, ModelError>,
) -> Result<Chosen<B>, ModelError> {
    let tried = match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Auto | DeviceChoice::Cuda => Some(gpu()),
    };
    let fallback = match tried {
        None => None,
        Some(Ok((backend, name))) => return Ok(Chosen { backend, device: Device::Cuda { name }, fallback: None }),
        Some(Err(error)) if choice == DeviceChoice::Cuda => return Err(error),
        Some(Err(ModelError::NoGpu(_))) => None,
        Some(Err(error)) => match error.gpu_fault() {
            Some(reason) => Some(Fallback { reason, explanation: error.to_string() }),
            None => return Err(error),
        },
    };
    Ok(Chosen { backend: cpu()?, device: Device::Cpu, fallback })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_with(choice: DeviceChoice, gpu: Result<(), ModelError>) -> Result<Chosen<()>, ModelError> {
        choose(choice, || gpu.map(|()| ((), "a GPU".to_owned())), || Ok(()))
    }

    fn faults() -> Vec<(ModelError, &'static str)> {
        let text = || "told so".to_owned();
        vec![
            (ModelError::OldGpu { found: 75, needed: 80 }, "architecture"),
            (ModelError::Compiler(text()), "compiler"),
            (ModelError::GpuMemory(text()), "memory"),
            (ModelError::Unsupported(text()), "model"),
            (ModelError::Cuda(text()), "driver"),
        ]
    }

    #[test]
    fn a_gpu_that_works_is_taken_unless_the_cpu_is_named() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cuda] {
            let chosen = try_with(choice, Ok(())).unwrap();
            assert_eq!((chosen.device, chosen.fallback), (Device::Cuda { name: "a GPU".into() }, None));
        }
        let chosen = choose(DeviceChoice::Cpu, || panic!("asked for a GPU"), || Ok(())).unwrap();
        assert_eq!((chosen.device, chosen.fallback), (Device::Cpu, None));
    }

    #[test]
    fn without_a_gpu_the_cpu_is_no_fallback() {
        let chosen = try_with(DeviceChoice::Auto, Err(ModelError::NoGpu("none".into()))).unwrap();
        assert_eq!((chosen.device, chosen.fallback), (Device::Cpu, None));
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_a_fallback_with_its_reason() {
        for (error, reason) in faults() {
            let explanation = error.to_string();
            let chosen = try_with(DeviceChoice::Auto, Err(error)).unwrap();
            assert_eq!(chosen.device, Device::Cpu);
            assert_eq!(chosen.fallback, Some(Fallback { reason, explanation }));
        }
    }

    #[test]
    fn a_gpu_that_is_insisted_on_is_never_replaced() {
        let none = (ModelError::NoGpu("none".into()), "no_gpu");
        for (error, reason) in faults().into_iter().chain([none]) {
            let refused = choose(DeviceChoice::Cuda, || Err::<((), _), _>(error), || panic!("fell back"));
            assert_eq!(refused.err().unwrap().gpu_fault(), Some(reason));
        }
    }

    #[test]
    fn what_is_wrong_with_the_files_is_an_error_on_either() {
        let refused = choose(
            DeviceChoice::Auto,
            || Err::<((), _), _>(ModelError::MissingTensor("a".into())),
            || panic!("fell back"),
        );
        assert!(matches!(refused.err(), Some(ModelError::MissingTensor(_))));
    }
}
