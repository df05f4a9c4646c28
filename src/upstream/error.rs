//! What can go wrong between the sidecar and the server, and whether another try can help.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::intake::IntakeError;

/// Why a call to the upstream server brought no usable reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No reply came: refused, reset, timed out.
    #[error("cannot reach the upstream server at {url}: {reason}")]
    Unreachable {
        /// The server's base URL, without credentials.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server answered with an error of its own, kept whole so that the client can have it unchanged.
    #[error("the upstream server answered {}: {}", .0.status, String::from_utf8_lossy(&.0.body))]
    Status(Box<Refusal>),
    /// The reply is not what this API answers with.
    #[error("the upstream server's reply to {path} is not understood: {reason}")]
    Protocol {
        /// The route that was called.
        path: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The request could not be sent on to its end, by its client's fault.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The server aborted the request before it sampled anything.
    #[error("the upstream server aborted the request")]
    Aborted,
}

/// A reply that is not a success.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl UpstreamError {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status(refusal) => {
                refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Protocol { .. } | Self::Intake(_) | Self::Aborted => false,
        }
    }

    /// Whether the V1 runner refused to print rows of prompt log-probabilities that it never computed.
    ///
    /// Such rows hold uninitialised memory; where that is not a number, the server answers 400.
    #[must_use]
    pub fn is_unprintable_row(&self) -> bool {
        const MESSAGE: &[u8] = b"Out of range float values";
        let Self::Status(refusal) = self else { return false };
        refusal.status == StatusCode::BAD_REQUEST && refusal.body.windows(MESSAGE.len()).any(|window| window == MESSAGE)
    }

    /// The status, if the server answered with one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status(refusal) => Some(refusal.status),
            _ => None,
        }
    }
}

/// The innermost cause of an error chain, which is where "connection refused" stands.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
