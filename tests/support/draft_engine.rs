//! A draft model's time, without a model: each step gives one token to every rollout that waits for one, as the model
//! thread of the sidecar does.

use tokio::sync::{mpsc, oneshot};

use super::fake_vllm::DraftCost;
use super::timeline::Timeline;

/// The way to a draft model that rollouts share. It ends with the last of these.
#[derive(Debug, Clone)]
pub struct DraftEngine {
    rows: mpsc::UnboundedSender<Row>,
}

/// What a rollout wants of the next step.
#[derive(Debug)]
struct Row {
    /// Tokens of its context to be read.
    unread: usize,
    done: oneshot::Sender<()>,
}

impl DraftEngine {
    /// An idle model that takes what `cost` says.
    #[must_use]
    pub fn start(cost: DraftCost, timeline: Timeline) -> Self {
        let (rows, waiting) = mpsc::unbounded_channel();
        tokio::spawn(run(cost, timeline, waiting));
        Self { rows }
    }

    /// Returns once the model has read `unread` tokens and computed one for the caller. Who asks again at that instant is
    /// in the very next step; who drops this is in none that has not begun.
    pub async fn token(&self, unread: usize) {
        let (done, computed) = oneshot::channel();
        // Neither end goes before the runtime does.
        let _ = self.rows.send(Row { unread, done });
        let _ = computed.await;
    }
}

async fn run(cost: DraftCost, timeline: Timeline, mut waiting: mpsc::UnboundedReceiver<Row>) {
    while let Some(first) = waiting.recv().await {
        let mut rows = vec![first];
        let mut begin = timeline.now();
        loop {
            // Who comes at this instant does so before the step.
            timeline.settled().await;
            while let Ok(row) = waiting.try_recv() {
                rows.push(row);
            }
            rows.retain(|row| !row.done.is_closed());
            if rows.is_empty() {
                break;
            }
            begin += cost.step(rows.len(), rows.iter().map(|row| row.unread).sum());
            timeline.until(begin).await;
            for row in rows.drain(..) {
                // Who has gone meanwhile does not mind.
                let _ = row.done.send(());
            }
        }
    }
}
