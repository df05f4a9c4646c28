//! A bar on standard error while the benchmark runs, where that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a run is.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so many rollouts. Drawn twice a second: the machine has other things to do.
    pub(super) fn new(rollouts: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(rollouts as u64), ProgressDrawTarget::stderr_with_hz(2));
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} rollouts, {eta} left");
        Self(match style {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_) => bar,
        })
    }

    /// A cell begins.
    pub(super) fn begin(&self, workload: &str, temperature: Option<f64>, epoch: Option<usize>, concurrency: usize) {
        let temperature = temperature.map_or_else(String::new, |temperature| format!(", temperature {temperature}"));
        let epoch = epoch.map_or_else(String::new, |epoch| format!(", epoch {epoch}"));
        self.0.set_message(format!("{workload}{temperature}{epoch}, {concurrency} at a time"));
    }

    /// A rollout ended.
    pub(super) fn rollout(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
