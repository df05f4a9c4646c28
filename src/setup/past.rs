//! The history that the settings ask for.

use std::sync::Arc;

use crate::config::HistorySettings;
use crate::history::{History, Indexes, Memory};
use crate::rollout::Past;
use crate::telemetry::{Kind, Metrics};

/// Tokens of one prompt's rollouts in the suffix index at most: some dozens of long ones.
const INDEXED: usize = 1 << 17;

/// An empty history, if there is to be one, whose size is shown among `metrics`. The rollouts and their index have half of
/// the bytes each where there is an index.
pub(super) fn past(settings: &HistorySettings, metrics: &Metrics) -> Option<Past> {
    if !settings.is_on() {
        return None;
    }
    let bytes = settings.history_bytes;
    // Without replay nobody reads the rollouts.
    let (kept, indexed) = match (settings.replay, settings.suffix) {
        (true, true) => (bytes / 2, bytes / 2),
        (true, false) => (bytes, 0),
        (false, _) => (0, bytes),
    };
    let history: Arc<dyn History> = Arc::new(Memory::new(kept));
    let indexes = settings.suffix.then(|| Arc::new(Indexes::new(indexed, INDEXED)));
    if let Err(error) = watch(&history, indexes.as_ref(), metrics) {
        tracing::error!(%error, "the history's figures are not on the metrics page");
    }
    let (replays, rows, metrics) = (settings.replay, settings.history_rows, metrics.history.clone());
    Some(Past { history, indexes, replays, rows, metrics })
}

fn watch(history: &Arc<dyn History>, indexes: Option<&Arc<Indexes>>, metrics: &Metrics) -> prometheus::Result<()> {
    type Read = fn(&dyn History) -> usize;
    let figures: [(&str, &str, Read); 4] = [
        ("prompts", "Prompts whose rollouts are remembered.", |history| history.usage().prompts),
        ("rollouts", "Rollouts remembered.", |history| history.usage().rollouts),
        ("tokens", "Tokens of rollouts remembered.", |history| history.usage().tokens),
        ("bytes", "Bytes of rollouts remembered.", |history| history.usage().bytes),
    ];
    for (name, help, read) in figures {
        let history = Arc::clone(history);
        let read = move || read(history.as_ref()) as u64;
        metrics.figure(Kind::Gauge, &format!("sidedraft_history_{name}"), help, read)?;
    }
    if let Some(indexes) = indexes {
        let of = Arc::clone(indexes);
        let read = move || of.usage().1 as u64;
        metrics.figure(Kind::Gauge, "sidedraft_suffix_index_bytes", "Bytes of the suffix drafter's indexes.", read)?;
    }
    Ok(())
}
