//! Requests that are turned away before anything is made of them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::error::error_response;
use crate::upstream::IntakeError;

/// Seconds after which a client that found no room may try again.
const LATER: u64 = 1;

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its head has more than these bytes.
    HeadTooLong(usize),
    /// Its body has more than these bytes.
    BodyTooLong(u64),
    /// No more of its body came for so long.
    TooSlow(Duration),
    /// As many rollouts are under way as may be.
    NoRoom(usize),
    /// As many connections are open as may be.
    Full(usize),
    /// It does not bring the key of the sidecar's own routes.
    Unauthorised,
    /// The sidecar is stopped before it could be answered.
    Stopping,
}

impl Refusal {
    /// What becomes of a request whose body does not come to its end; nothing where the client broke off.
    pub(super) fn of(error: &IntakeError) -> Option<Self> {
        match error {
            IntakeError::TooLong(most) => Some(Self::BodyTooLong(*most)),
            IntakeError::TooSlow(patience) => Some(Self::TooSlow(*patience)),
            IntakeError::Broken(_) => None,
        }
    }

    /// The name under which it is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HeadTooLong(_) => "head_too_long",
            Self::BodyTooLong(_) => "body_too_long",
            Self::TooSlow(_) => "body_too_slow",
            Self::NoRoom(_) => "rollouts",
            Self::Full(_) => "connections",
            Self::Unauthorised => "key",
            Self::Stopping => "stopping",
        }
    }

    /// Status and type.
    pub(super) fn kind(self) -> (StatusCode, &'static str) {
        match self {
            Self::HeadTooLong(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "RequestHeaderFieldsTooLargeError"),
            Self::BodyTooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeError"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutError"),
            Self::NoRoom(_) => (StatusCode::TOO_MANY_REQUESTS, "RateLimitError"),
            Self::Full(_) | Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "AuthenticationError"),
        }
    }

    pub(super) fn message(self) -> String {
        match self {
            Self::HeadTooLong(most) => format!("the request's line and headers are longer than {most} bytes"),
            // In the words of the error itself.
            Self::BodyTooLong(most) => IntakeError::TooLong(most).to_string(),
            Self::TooSlow(patience) => IntakeError::TooSlow(patience).to_string(),
            Self::NoRoom(most) => format!("{most} rollouts at once are the most that this sidecar takes"),
            Self::Full(most) => format!("{most} connections at once are the most that this sidecar takes"),
            Self::Stopping => "the sidecar is being stopped".to_owned(),
            Self::Unauthorised => "this route of the sidecar's needs its key as a bearer token".to_owned(),
        }
    }

    /// What else the reply says.
    fn header(self) -> (HeaderName, HeaderValue) {
        match self {
            // What is left of the request is not read, so nothing can come after it.
            Self::HeadTooLong(_) | Self::BodyTooLong(_) | Self::TooSlow(_) => {
                (header::CONNECTION, HeaderValue::from_static("close"))
            }
            Self::NoRoom(_) | Self::Full(_) | Self::Stopping => (header::RETRY_AFTER, HeaderValue::from(LATER)),
            Self::Unauthorised => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        }
    }

    /// The reply.
    pub(super) fn response(self) -> Response<Body> {
        let (status, kind) = self.kind();
        let mut response = error_response(status, kind, &self.message());
        let (name, value) = self.header();
        response.headers_mut().insert(name, value);
        response
    }
}
