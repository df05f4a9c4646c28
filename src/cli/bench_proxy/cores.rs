//! Which processor cores the proxies run on, and which everything else.

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of this process, in two parts: a proxy gets no help from the cores that load it.
#[derive(Debug, PartialEq)]
pub(super) struct Cores {
    /// Of the proxy that is measured.
    pub proxy: Vec<usize>,
    /// Of the upstream and the clients.
    pub load: Vec<usize>,
}

impl Cores {
    /// Divides the cores that this process may use.
    pub(super) fn divide(wanted: Option<usize>) -> anyhow::Result<Self> {
        let set = sched_getaffinity(None).context("cannot tell which cores may be used")?;
        Self::of((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(), wanted)
    }

    fn of(all: Vec<usize>, wanted: Option<usize>) -> anyhow::Result<Self> {
        ensure!(all.len() > 1, "with a single core, a proxy cannot be told from its load");
        let count = wanted.unwrap_or((all.len() / 4).max(1));
        ensure!(count < all.len(), "--cores {count} leaves none of {} cores for upstream and clients", all.len());
        let (load, proxy) = all.split_at(all.len() - count);
        Ok(Self { proxy: proxy.to_vec(), load: load.to_vec() })
    }
}

/// Confines this thread, and the threads and processes that it starts from now on, to `cores`.
pub(super) fn confine(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on cores {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_gets_a_quarter_of_the_cores_and_one_at_least() {
        assert_eq!(Cores::of(vec![0, 1], None).unwrap(), Cores { proxy: vec![1], load: vec![0] });
        assert_eq!(Cores::of((0..8).collect(), None).unwrap().proxy, [6, 7]);
        assert_eq!(Cores::of((0..4).collect(), Some(3)).unwrap().load, [0]);
    }

    #[test]
    fn the_load_needs_a_core_of_its_own() {
        assert!(Cores::of(vec![0], None).is_err());
        assert!(Cores::of(vec![0, 1], Some(2)).is_err());
    }
}
