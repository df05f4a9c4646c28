//! A row of the matrix.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::census::Census;

/// When a row runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With every test.
    Fast,
    /// When it is asked for.
    Slow,
    /// The same, in front of a real vLLM.
    Real,
}

/// One fault.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name as a test.
    pub name: &'static str,
    pub kind: Kind,
    /// What is done.
    pub fault: &'static str,
    /// What clients must see.
    pub must: &'static str,
    /// Does it, asserts what must be, and returns what was.
    pub run: fn() -> Running,
}

/// A row under way.
pub type Running = Pin<Box<dyn Future<Output = Seen>>>;

/// What was seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// By clients.
    pub clients: String,
    /// What there was most of and what was left of it, above what there is while nothing happens.
    pub most: Census,
    pub left: Census,
}

impl Row {
    /// Runs it in a runtime of its own.
    ///
    /// # Errors
    /// What it asserts in vain.
    pub fn check(&self) -> Result<Seen, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        catch_unwind(AssertUnwindSafe(|| runtime.block_on((self.run)()))).map_err(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap_or_default()
        })
    }
}

/// How many clients saw what, step by step.
#[derive(Debug, Default)]
pub struct Tally {
    steps: Vec<(&'static str, BTreeMap<String, usize>)>,
}

impl Tally {
    /// Begins a step; the first one often needs no name.
    pub fn step(&mut self, name: &'static str) {
        self.steps.push((name, BTreeMap::new()));
    }

    pub fn add(&mut self, seen: impl fmt::Display) {
        if self.steps.is_empty() {
            self.step("");
        }
        *self.steps.last_mut().unwrap().1.entry(seen.to_string()).or_default() += 1;
    }

    pub fn add_all(&mut self, seen: impl IntoIterator<Item = impl fmt::Display>) {
        seen.into_iter().for_each(|seen| self.add(seen));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, counts)) in self.steps.iter().enumerate() {
            let counts: Vec<String> = counts.iter().map(|(seen, count)| format!("{count} × {seen}")).collect();
            let (before, colon) = (if at > 0 { "; " } else { "" }, if name.is_empty() { "" } else { ": " });
            write!(f, "{before}{name}{colon}{}", counts.join(", "))?;
        }
        Ok(())
    }
}
