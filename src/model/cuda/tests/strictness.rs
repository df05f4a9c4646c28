//! The emulator finds what a GPU would get wrong only sometimes.

use super::emulated::{call, library};
use crate::model::cuda::device::{Address, Launch};
use crate::model::cuda::source::Kernel;

const KERNELS: &str = "
KERNEL(64) copies(float* from, float* to, int wait) {
    LAUNCH_SHARED(memory);
    copy_async(memory + threadIdx.x, from + 4 * threadIdx.x);
    copies_end();
    if (wait) copies_done<0>();
    to[threadIdx.x] = ((float*)memory)[4 * threadIdx.x];
}

KERNEL(64) swaps(float* from, float* to, int wait) {
    LAUNCH_SHARED(memory);
    ((float*)memory)[threadIdx.x] = from[threadIdx.x];
    if (wait) __syncthreads();
    to[threadIdx.x] = ((float*)memory)[63 - threadIdx.x];
}

KERNEL(64) follows(float* from, float* to, int wait) {
    float early = from[threadIdx.x];
    inputs_ready();
    to[threadIdx.x] = wait ? from[threadIdx.x] : early;
}

KERNEL(64) diverges(float* from, float* to, int together) {
    float value = from[threadIdx.x];
    if (together || threadIdx.x % 2) value = __shfl_sync(FULL_WARP, value, 0);
    else __syncwarp();
    to[threadIdx.x] = value;
}

KERNEL(64) leaves(float* from, float* to, int together) {
    to[threadIdx.x] = from[threadIdx.x];
    if (!together && threadIdx.x == 5) return;
    __syncthreads();
}
";

/// What a kernel makes of 1, 2, …, in both orders of threads; the input was written by the kernel before.
fn run(name: &str, right: bool) -> Vec<Result<Vec<f32>, String>> {
    let kernels = library(KERNELS, &["copies", "swaps", "follows", "diverges", "leaves"]);
    let run = |reverse| {
        // 128 bits each, so that they are aligned as copies want.
        let from: Vec<u128> = (0..64u32)
            .map(|i| (0..4).map(|part| u128::from(((4 * i + part + 1) as f32).to_bits()) << (32 * part)).sum())
            .collect();
        let mut to = vec![0f32; 64];
        let input = Address(from.as_ptr() as u64);
        let launch = Launch {
            // Not asked for: the name is given apart.
            kernel: Kernel::Embed,
            grid: [1, 1, 1],
            threads: 64,
            shared: 1024,
            arguments: vec![input.into(), Address(to.as_mut_ptr() as u64).into(), usize::from(right).into()],
            writes: vec![],
        };
        call(&kernels, name, &launch, &[(input, 1024)], reverse).map(|()| to)
    };
    [false, true].map(run).to_vec()
}

fn has_nan(results: &[Result<Vec<f32>, String>]) -> bool {
    results.iter().any(|result| result.as_ref().unwrap().iter().any(|value| value.is_nan()))
}

#[test]
fn a_copy_that_was_not_waited_for_is_not_there() {
    // Inputs count as written before, so even the right kernel would have to wait for them: none does here.
    assert!(has_nan(&run("copies", false)));
}

#[test]
fn a_missing_barrier_shows() {
    assert!(has_nan(&run("swaps", false)));
}

#[test]
fn what_the_kernel_before_wrote_is_there_only_after_waiting() {
    assert!(has_nan(&run("follows", false)));
    let waited = run("follows", true);
    assert!(waited.iter().all(|result| result.as_ref().unwrap().iter().zip(1..).all(|(x, i)| *x == i as f32)));
}

#[test]
fn lanes_that_meet_in_different_places_are_an_error() {
    assert!(run("diverges", false).iter().all(|result| result.as_ref().unwrap_err().contains("different collectives")));
    assert!(run("diverges", true).iter().all(Result::is_ok));
}

#[test]
fn a_barrier_that_a_thread_never_reaches_is_an_error() {
    assert!(run("leaves", false).iter().all(|result| result.as_ref().unwrap_err().contains("never come")));
    assert!(run("leaves", true).iter().all(Result::is_ok));
}
