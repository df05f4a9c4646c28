//! Chats that are decoded from their first token on: they begin as the server's own stream of the client's own request,
//! whose first event tells the prompt. That saves the request by which the server is otherwise asked for the prompt.
//!
//! It is only done where the rollout before began by decoding too, for a reason that is expected to last. Where this one
//! would rather have speculated, it leaves the stream soon.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::control::Turn;
use super::controller::monitor::Present;
use super::controller::{Choice, Reason, Speculate, is_crowd};
use super::driver::{Running, Seat};
use super::engine::{AHEAD, Deltas, Engine, Shared};
use super::types::Rollout;
use crate::speculation::TokenId;
use crate::telemetry::Opened;
use crate::upstream::chat::RenderedChat;
use crate::upstream::{Origin, Tokens, UpstreamError};

/// A rollout whose prompt was not known here when it began. Dropped, it is over.
pub struct Opening {
    seat: Seat,
    /// What it is among the server's load, until it runs.
    presence: [Present; 3],
    begun: Option<Begun>,
}

/// A stream of which the first event was read.
struct Begun {
    turn: Turn,
    tokens: Tokens,
    prompt: Vec<TokenId>,
}

impl Opening {
    /// Its prompt; absent where the stream did not tell it or had to be left before: then the rollout has not begun.
    #[must_use]
    pub fn prompt(&self) -> Option<&[TokenId]> {
        self.begun.as_ref().map(|begun| begun.prompt.as_slice())
    }
}

impl Engine {
    /// Whether a chat had better begin as the server's own stream than have its prompt made first.
    #[must_use]
    pub fn opens_chats(&self) -> bool {
        let Shared { settings, decodes_first, has_untold, .. } = &*self.shared;
        let is_open = settings.past.is_none() && settings.policy.speculate != Speculate::Always;
        is_open
            && !settings.capabilities.rust_frontend
            && decodes_first.load(Ordering::Relaxed)
            && !has_untold.load(Ordering::Relaxed)
    }

    /// The prompt of a whole chat completion `request`, which the server makes unless it has just done so for the same one.
    ///
    /// # Errors
    /// When the server refuses: it would refuse the request itself in the same words.
    pub async fn render_chat(&self, origin: &Origin, request: &Bytes) -> Result<Arc<RenderedChat>, UpstreamError> {
        let Shared { settings, renderings, .. } = &*self.shared;
        let call = || {
            let (upstream, origin, request) = (settings.upstream.clone(), origin.clone(), request.clone());
            async move { upstream.render_chat(&origin, request).await }
        };
        let (rendered, source) = renderings.get(origin, request, call).await;
        if rendered.is_ok() {
            settings.metrics.requests.chat_rendered(source.name());
        }
        rendered
    }

    /// Begins the only rollout of a chat completion `request`, which control requests know by `id`, as a stream of the
    /// server's, and waits until that tells the prompt.
    ///
    /// # Errors
    /// When the server refuses: it would refuse the request itself in the same words.
    pub async fn open_chat(
        &self,
        id: &Arc<str>,
        origin: &Origin,
        request: &Bytes,
        is_streamed: bool,
    ) -> Result<Opening, UpstreamError> {
        let shared = &*self.shared;
        let monitor = &shared.monitor;
        let presence = [monitor.rollout(), monitor.starting(), monitor.at_server()];
        let seat = Seat::take(&shared.settings, id);
        let aborted = seat.member.aborted();
        let interval = shared.stream_interval(is_streamed);
        let begin = async {
            let turn = seat.member.turn().await;
            tokio::select! {
                biased;
                begun = shared.begin_chat(origin, request, interval) => begun.map(|begun| match begun {
                    Some((tokens, prompt)) => (Some(Begun { turn, tokens, prompt }), Opened::Kept),
                    None => (None, Opened::Untold),
                }),
                () = turn.is_wanted() => Ok((None, Opened::Left)),
            }
        };
        let (begun, outcome) = tokio::select! {
            biased;
            begun = begin => begun?,
            () = aborted => (None, Opened::Left),
        };
        shared.settings.metrics.requests.chat_opened(outcome);
        Ok(Opening { seat, presence, begun })
    }

    /// Goes on with `rollout` from where it was opened, or starts it if it has not begun.
    #[must_use]
    pub fn start_opened(&self, rollout: Rollout, opening: Opening) -> Deltas {
        let (events, deltas) = mpsc::channel(AHEAD);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let Opening { seat, presence, begun } = opening;
            let mut run = Running::new(Arc::clone(&shared), rollout.clone(), 0, seat, None, events);
            // From here on it counts as what it has become.
            drop(presence);
            let Some(Begun { turn, tokens, .. }) = begun else { return shared.group(&rollout, vec![run]).await };
            let decoding = shared.begin(std::slice::from_mut(&mut run)).await;
            // One that would rather speculate does so after the tokens that are here.
            run.begin_as(decoding.unwrap_or(Choice::decode(Reason::Opened, 1)));
            run.continue_stream(turn, tokens);
            run.run(None).await;
        });
        deltas
    }
}

impl Shared {
    /// The stream and its prompt; `None` where the stream does not begin with it.
    async fn begin_chat(
        &self,
        origin: &Origin,
        request: &[u8],
        interval: Option<usize>,
    ) -> Result<Option<(Tokens, Vec<TokenId>)>, UpstreamError> {
        let mut tokens = self.settings.upstream.decode_chat(origin, request, interval).await?;
        if let Some(first) = tokens.next().await.transpose()?
            && let Some(prompt) = first.prompt
            && first.tokens.is_empty()
        {
            return Ok(Some((tokens, prompt)));
        }
        tracing::warn!("the server's chat streams do not tell the prompt: asking for it beforehand from now on");
        self.has_untold.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Tokens in an event of a stream that no client reads as it comes: each costs the server's frontend time, and the more
    /// rollouts run, the less it matters that a decision waits for the next.
    pub(super) fn stream_interval(&self, is_streamed: bool) -> Option<usize> {
        let takes_it = self.settings.capabilities.takes_stream_interval();
        (takes_it && !is_streamed).then_some(if is_crowd(self.monitor.load().rollouts()) { 8 } else { 4 })
    }
}
