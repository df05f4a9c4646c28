//! Which requests are not simply the server's to answer.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};

use super::control::Action;
use super::own::Own;
use super::reason::Reason;
use super::speculated::Job;
use super::{chat, completions, generate};
use crate::rollout::Engine;

/// A request that is not simply the server's to answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    Health,
    Metrics,
    Own(Own),
    Speculated(Endpoint),
    /// With the name that it is counted by.
    Control(Action, &'static str),
}

impl Route {
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        match (method, uri.path()) {
            (&Method::GET, "/health") => Some(Self::Health),
            (&Method::GET, "/metrics") => Some(Self::Metrics),
            (&Method::GET, path) if path.starts_with("/sidedraft") => Own::at(path).map(Self::Own),
            (&Method::POST, "/v1/completions") => Some(Self::Speculated(Endpoint::Completions)),
            (&Method::POST, "/v1/chat/completions") => Some(Self::Speculated(Endpoint::Chat)),
            (&Method::POST, "/inference/v1/generate") => Some(Self::Speculated(Endpoint::Generate)),
            _ => Action::of(method, uri).map(|(action, name)| Self::Control(action, name)),
        }
    }

    /// Whether it tells what only the holder of the sidecar's key may know.
    pub(super) fn needs_key(self) -> bool {
        match self {
            Self::Metrics => true,
            Self::Own(own) => own.needs_key(),
            Self::Health | Self::Speculated(_) | Self::Control(..) => false,
        }
    }

    /// Whether it is about the sidecar, and is to be answered however crowded it is here.
    pub(super) fn is_about_here(self) -> bool {
        matches!(self, Self::Health | Self::Metrics | Self::Own(_))
    }
}

/// A route whose requests are speculated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Endpoint {
    Completions,
    Chat,
    Generate,
}

impl Endpoint {
    pub(super) async fn prepare(
        self,
        engine: &Engine,
        head: &Parts,
        body: &Bytes,
        has_room: bool,
    ) -> Result<Job, Reason> {
        match self {
            Self::Completions => completions::prepare(engine, head, body).await,
            Self::Chat => chat::prepare(engine, head, body, has_room).await,
            Self::Generate => generate::prepare(engine, head, body).await,
        }
    }
}

pub(super) fn is_plain_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json") && !headers.contains_key(header::CONTENT_ENCODING)
}
