//! What there is to tell of a shared history: whoever sets it up counts it.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

use super::record::RecordError;

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// Whether there is a connection, when that changes.
    Connected(bool),
    /// Redis did not do what it was asked to.
    Failed(Fault),
    /// What became of a record.
    Record(Fate),
    /// A record that was read is none.
    Refused(RecordError),
    /// Rollouts began without what had been sent for.
    Late,
    /// A batch of commands was answered, after so long.
    Answered(Duration),
    /// The task that speaks with Redis panicked, and does no more: this sidecar goes on with what it has itself.
    Panicked,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was written.
    Written,
    /// There was no room in the queue to Redis.
    Dropped,
    /// It could not be written, or nobody knows whether it was.
    Failed,
    /// This sidecar's own, handed out by it.
    Claimed,
    /// Another's, handed out by this sidecar.
    Imported,
    /// Another's, which came too late for those it was sent for, and is handed out without its rows.
    ImportedLate,
    /// This sidecar's own, which it had forgotten when it was to hand it out.
    Forgotten,
    /// Another's text, indexed.
    Indexed,
}

impl Fate {
    /// Its name among the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::Claimed => "claimed",
            Self::Imported => "imported",
            Self::ImportedLate => "imported_late",
            Self::Forgotten => "forgotten",
            Self::Indexed => "indexed",
        }
    }
}

/// Why Redis did not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection to be had.
    Connect,
    /// It does not accept the name or the password, or forbids a command.
    Denied,
    /// It did not answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// Its memory is full.
    Full,
    /// Something else stands where history should.
    WrongType,
    /// It takes no commands, or no writes, at present.
    Busy,
    /// It answered something else than expected.
    Reply,
}

impl Fault {
    pub(super) fn of(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (_, Some("OOM")) => Self::Full,
            (_, Some("WRONGTYPE")) => Self::WrongType,
            (_, Some("LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "MISCONF")) => Self::Busy,
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Denied,
            _ if error.is_timeout() => Self::Timeout,
            (ErrorKind::Io, _) => Self::Broken,
            // A script passes on what a command of its own was answered, behind a code of its own.
            _ if error.to_string().contains("WRONGTYPE") => Self::WrongType,
            _ if error.to_string().contains("OOM ") => Self::Full,
            _ => Self::Reply,
        }
    }

    /// Whether it is certain that a command so answered changed nothing.
    pub(super) fn leaves_all_as_it_was(self) -> bool {
        matches!(self, Self::Connect | Self::Denied | Self::Full | Self::WrongType | Self::Busy)
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Broken)
    }

    /// Its name among the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Full => "full",
            Self::WrongType => "wrong_type",
            Self::Busy => "busy",
            Self::Reply => "reply",
        }
    }
}
