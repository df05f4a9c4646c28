//! A proxy as a process of its own: started, timed, and ended with this one.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process that ends when this is dropped, and its own children with it.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Processor time that it and its children have used; nothing where the kernel does not tell.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let mut all = vec![self.0.id()];
        let mut next = 0;
        let mut used = Duration::ZERO;
        while let Some(&id) = all.get(next) {
            let tasks = PathBuf::from(format!("/proc/{id}/task"));
            for task in std::fs::read_dir(tasks).ok()? {
                let task = task.ok()?.path();
                let Ok(times) = std::fs::read_to_string(task.join("schedstat")) else { return None };
                used += Duration::from_nanos(times.split(' ').next()?.parse().ok()?);
                let children = std::fs::read_to_string(task.join("children")).ok()?;
                all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            next += 1;
        }
        Some(used)
    }

    /// Whether it still runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked politely, nginx takes its workers along.
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let asked = id.is_some_and(|id| self.runs() && kill_process(id, Signal::TERM).is_ok());
        if !asked {
            _ = self.0.kill();
        }
        _ = self.0.wait();
    }
}
