//! The history that the settings ask for.

use std::sync::Arc;

use crate::config::HistorySettings;
use crate::history::shared::{Event, Reporter, Shared};
use crate::history::{History, Indexes, Memory};
use crate::rollout::{Control, Past};
use crate::telemetry::{Kind, Metrics, PanicMetrics, Place, SharedHistoryMetrics};

/// Tokens of one prompt's rollouts in the suffix index at most: some dozens of long ones.
const INDEXED: usize = 1 << 17;

/// An empty history, if there is to be one, whose size is shown among `metrics`. The rollouts and their index have half of
/// the bytes each where there is an index. Where others share it, they are told when `control` sees another version.
pub(super) fn past(settings: &HistorySettings, control: &Control, metrics: &Metrics) -> Option<Past> {
    if !settings.is_on() {
        return None;
    }
    let bytes = settings.history_bytes;
    let is_shared = settings.history_redis.is_some();
    // Without replay nobody reads the rollouts, unless it is others.
    let (kept, indexed) = match (settings.replay || is_shared, settings.suffix) {
        (true, true) => (bytes / 2, bytes / 2),
        (true, false) => (bytes, 0),
        (false, _) => (0, bytes),
    };
    let indexes = settings.suffix.then(|| Arc::new(Indexes::new(indexed, INDEXED)));
    let shared = share(settings, kept, indexes.as_ref(), control, metrics);
    let is_shared = shared.is_some();
    let history = shared.unwrap_or_else(|| Arc::new(Memory::new(kept)));
    if let Err(error) = watch(&history, indexes.as_ref(), metrics) {
        tracing::error!(%error, "the history's figures are not on the metrics page");
    }
    let (replays, rows, metrics) = (settings.replay, settings.history_rows, metrics.history.clone());
    Some(Past { history, indexes, replays, is_shared, rows, metrics })
}

/// The history as part of one that is shared, if that is wanted.
fn share(
    settings: &HistorySettings,
    kept: usize,
    indexes: Option<&Arc<Indexes>>,
    control: &Control,
    metrics: &Metrics,
) -> Option<Arc<dyn History>> {
    let options = settings.shared()?;
    let panics = metrics.panics.clone();
    let reporter = match metrics.shared_history() {
        Ok(metrics) => Reporter::new(move |event| count(&metrics, &panics, event)),
        Err(error) => {
            tracing::error!(%error, "what becomes of the shared history is not on the metrics page");
            Reporter::new(|_| {})
        }
    };
    let shared = match Shared::start(options, kept, indexes.cloned(), reporter) {
        Ok(shared) => shared,
        Err(error) => {
            tracing::error!(%error, "the history is not shared");
            return None;
        }
    };
    let (control, told) = (control.clone(), Arc::clone(&shared));
    metrics.panics.tend(move || tell_versions(control.clone(), Arc::clone(&told)));
    Some(shared)
}

async fn tell_versions(control: Control, shared: Arc<Shared>) {
    let mut version = control.version();
    loop {
        shared.moved(&version).await;
        version = control.version_after(&version).await;
    }
}

fn count(metrics: &SharedHistoryMetrics, panics: &PanicMetrics, event: Event) {
    match event {
        Event::Connected(is_connected) => metrics.connected.set(i64::from(is_connected)),
        Event::Failed(fault) => metrics.failed(fault.name()),
        Event::Record(fate) => metrics.record(fate.name()),
        Event::Refused(error) => metrics.refused(error.name()),
        Event::Late => metrics.late.inc(),
        Event::Answered(after) => metrics.batch_seconds.observe(after.as_secs_f64()),
        Event::Panicked => {
            metrics.connected.set(0);
            panics.note(Place::Background);
        }
    }
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
