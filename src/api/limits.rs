//! What clients may take of the sidecar.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What clients may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of a request's head.
    pub header_bytes: usize,
    /// Most bytes of a request's body.
    pub body_bytes: u64,
    /// Requests with longer bodies are forwarded unread.
    pub parsed_bytes: usize,
    /// Most connections.
    pub connections: usize,
    /// Most rollouts at once.
    pub rollouts: usize,
    /// How long the head of a connection's next request may take, idle time included.
    pub header_timeout: Duration,
    /// How long a client may let wait for more of a request's body.
    pub body_timeout: Duration,
}

/// Bytes of a request's head as it came over the wire, but for the spaces that it might have done without.
pub(super) fn head_bytes(request_target: &http::Uri, headers: &HeaderMap) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    let target = request_target.path_and_query().map_or(0, |target| target.as_str().len());
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS).sum::<usize>() + target
}

/// Room for rollouts.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    free: Arc<Semaphore>,
}

/// Rollouts that have room, until this is dropped.
pub(super) type Taken = OwnedSemaphorePermit;

/// Why rollouts have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Others are under way; later there may be.
    Now,
    /// They are more than there is room for at all.
    Ever,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { most, free: Arc::new(Semaphore::new(most)) }
    }

    /// Whether there is any now.
    pub(super) fn is_left(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// Room for so many.
    pub(super) fn take(&self, rollouts: usize) -> Result<Taken, NoRoom> {
        if rollouts > self.most {
            return Err(NoRoom::Ever);
        }
        let rollouts = u32::try_from(rollouts).map_err(|_| NoRoom::Ever)?;
        Arc::clone(&self.free).try_acquire_many_owned(rollouts).map_err(|_| NoRoom::Now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_again_when_rollouts_are_over() {
        let room = Room::new(3);
        let two = room.take(2).unwrap();
        assert_eq!(room.take(2).err(), Some(NoRoom::Now));
        assert!(room.is_left());
        let one = room.take(1).unwrap();
        assert!(!room.is_left());
        assert_eq!(room.take(1).err(), Some(NoRoom::Now));
        drop(two);
        assert!(room.take(2).is_ok());
        assert_eq!(room.take(4).err(), Some(NoRoom::Ever));
        drop(one);
        assert!(room.take(3).is_ok());
    }
}
