//! What there is of everything that could leak.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts of what must be back where it was when all is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// Tasks of the runtime.
    pub tasks: u64,
    /// Open files, sockets among them.
    pub files: u64,
    /// Clients' connections.
    pub connections: u64,
    /// Rollouts under way.
    pub rollouts: u64,
    /// Rollouts that the draft model holds keys and values of.
    pub slots: u64,
    /// Requests that the server works on.
    pub upstream: u64,
}

impl Census {
    /// From a metrics page and the files of a process, `self` among other names; nothing runs at the server yet.
    pub fn of(page: &str, process: &str) -> Self {
        let value = |name: &str| {
            let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
            page.lines()
                .filter(of_name)
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum::<f64>() as u64
        };
        Self {
            tasks: value("sidedraft_tasks"),
            files: std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64),
            connections: value("sidedraft_connections"),
            rollouts: value("sidedraft_rollouts_running"),
            slots: value("sidedraft_draft_model_sequences"),
            upstream: 0,
        }
    }

    fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            tasks: of(self.tasks, other.tasks),
            files: of(self.files, other.files),
            connections: of(self.connections, other.connections),
            rollouts: of(self.rollouts, other.rollouts),
            slots: of(self.slots, other.slots),
            upstream: of(self.upstream, other.upstream),
        }
    }

    /// The larger of each.
    pub fn most(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    /// The smaller of each.
    pub fn least(self, other: Self) -> Self {
        self.each(other, u64::min)
    }

    /// What is above `before`.
    pub fn above(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    /// Each with its name.
    pub fn named(self) -> [(&'static str, u64); 6] {
        [
            ("rollouts", self.rollouts),
            ("upstream requests", self.upstream),
            ("draft slots", self.slots),
            ("connections", self.connections),
            ("files", self.files),
            ("tasks", self.tasks),
        ]
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.named().iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&counts.join(", "))
    }
}
