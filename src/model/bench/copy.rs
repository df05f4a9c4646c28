//! What the machine's memory gives: a plain copy, by as many threads as the model has.

use std::hint::black_box;
use std::time::Instant;

/// Bytes that are copied: many times what caches hold.
const BYTES: usize = 256 << 20;
/// Timed copies.
const COPIES: usize = 9;

/// Bytes that a second of copies reads and writes; the median of several.
pub(super) fn bandwidth(threads: usize) -> f64 {
    bandwidth_of(threads, BYTES)
}

fn bandwidth_of(threads: usize, bytes: usize) -> f64 {
    // Written, so that each is in memory of its own.
    let (from, mut to) = (vec![1u8; bytes], vec![2u8; bytes]);
    let part = bytes.div_ceil(threads.max(1));
    let mut seconds: Vec<f64> = (0..COPIES)
        .map(|_| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for (from, to) in from.chunks(part).zip(to.chunks_mut(part)) {
                    scope.spawn(move || to.copy_from_slice(from));
                }
            });
            black_box(&mut to);
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    2.0 * bytes as f64 / seconds[COPIES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_time_whatever_the_number_of_threads() {
        for threads in [1, 3] {
            let bandwidth = bandwidth_of(threads, 1 << 20);
            // Between a slow disk's and ten times a GPU's.
            assert!((1e7..3e13).contains(&bandwidth), "{bandwidth}");
        }
    }
}
