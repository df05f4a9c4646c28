//! Prompts that the server made a moment ago. The samples of a group are asked for in the same words, and rendering them
//! is work for the server's frontend, of which there is one.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use ring::digest::{Context, SHA256};
use tokio::time::Instant;

use super::chat::RenderedChat;
use super::error::UpstreamError;
use super::origin::Origin;

/// How long a prompt is good for. A template may look at the clock, by the day as a rule.
const FRESH: Duration = Duration::from_secs(10);
/// Tokens of prompts that are kept, all told.
const MOST_TOKENS: usize = 4 << 20;
/// Prompts that are kept, those on their way included.
const MOST: usize = 4096;
/// Headers that name the one request that they come with, for those who watch.
const OF_TRACES: [&str; 2] = ["traceparent", "tracestate"];

type Rendered = Result<Arc<RenderedChat>, UpstreamError>;
type Call = Shared<BoxFuture<'static, Rendered>>;
type Key = [u8; 32];

/// Prompts made lately, and those that are being made, by all that may have a say in them.
#[derive(Debug, Default)]
pub struct Renderings {
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    entries: HashMap<Key, Entry>,
    /// In the order in which they were asked for.
    order: VecDeque<(Instant, Key)>,
    tokens: usize,
}

#[derive(Debug)]
enum Entry {
    /// Goes on as long as somebody waits for it.
    Called(WeakShared<BoxFuture<'static, Rendered>>),
    Made(Arc<RenderedChat>),
}

impl Entry {
    fn tokens(&self) -> usize {
        match self {
            Self::Called(_) => 0,
            Self::Made(rendered) => rendered.prompt.len(),
        }
    }
}

/// Where a prompt came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The server made it for this request.
    Server,
    /// It was made for another request a moment ago, or is being made for it.
    Recent,
}

impl Source {
    /// The name under which it is counted.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Recent => "recent",
        }
    }
}

impl Renderings {
    /// The prompt of a request, which `call` has the server make, unless it has made or is making that of the same one.
    ///
    /// # Errors
    /// Those of the call, which are not kept.
    pub async fn get<C>(&self, origin: &Origin, request: &[u8], call: impl FnOnce() -> C) -> (Rendered, Source)
    where
        C: Future<Output = Result<RenderedChat, UpstreamError>> + Send + 'static,
    {
        let key = key(origin, request);
        let (call, source) = {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.forget();
            match recent.entries.get(&key) {
                Some(Entry::Made(rendered)) => return (Ok(Arc::clone(rendered)), Source::Recent),
                Some(Entry::Called(call)) if let Some(call) = call.upgrade() => (call, Source::Recent),
                _ => {
                    let call = call().map(|rendered| rendered.map(Arc::new)).boxed().shared();
                    recent.called(key, &call);
                    (call, Source::Server)
                }
            }
        };
        let rendered = call.await;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.returned(key, rendered.as_ref().ok());
        (rendered, source)
    }
}

impl Recent {
    fn called(&mut self, key: Key, call: &Call) {
        if let Some(call) = call.downgrade() {
            self.remove(&key);
            self.entries.insert(key, Entry::Called(call));
            self.order.push_back((Instant::now(), key));
        }
    }

    /// Takes in what came of a call, as whoever waited for it tells.
    fn returned(&mut self, key: Key, rendered: Option<&Arc<RenderedChat>>) {
        match (self.entries.get_mut(&key), rendered) {
            (Some(entry @ Entry::Called(_)), Some(rendered)) => {
                *entry = Entry::Made(Arc::clone(rendered));
                self.tokens += rendered.prompt.len();
            }
            (Some(Entry::Called(_)), None) => self.remove(&key),
            _ => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.tokens -= entry.tokens();
            self.order.retain(|(_, other)| other != key);
        }
    }

    /// Drops what is too old, or too much.
    fn forget(&mut self) {
        while let Some((begun, key)) = self.order.front().copied()
            && (begun.elapsed() >= FRESH || self.tokens > MOST_TOKENS || self.entries.len() >= MOST)
        {
            self.order.pop_front();
            self.tokens -= self.entries.remove(&key).map_or(0, |entry| entry.tokens());
        }
    }
}

/// The request and the headers that may matter for it, keys among them: it can only be compared.
fn key(origin: &Origin, request: &[u8]) -> Key {
    let mut hash = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in origin.headers.iter().filter(|(name, _)| !OF_TRACES.contains(&name.as_str())) {
        part(name.as_str().as_bytes());
        part(value.as_bytes());
    }
    part(request);
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::HeaderMap;

    use super::*;

    fn of(key: &'static str) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", key.parse().unwrap());
        Origin::new(&headers, None)
    }

    fn chat(tokens: usize) -> RenderedChat {
        RenderedChat { prompt: vec![7; tokens], max_tokens: None, has_features: false }
    }

    /// Counts calls to a server that answers everything with `tokens` tokens.
    #[derive(Default)]
    struct Server {
        renderings: Renderings,
        calls: Arc<AtomicUsize>,
        tokens: usize,
    }

    impl Server {
        async fn asked(&self, origin: &Origin, request: &str) -> Source {
            let (calls, tokens) = (Arc::clone(&self.calls), self.tokens);
            let call = async move {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(chat(tokens))
            };
            let (rendered, source) = self.renderings.get(origin, request.as_bytes(), || call).await;
            assert_eq!(*rendered.unwrap(), chat(tokens));
            source
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::Relaxed)
        }

        fn held(&self) -> (usize, usize, usize) {
            let recent = self.renderings.recent.lock().unwrap();
            (recent.entries.len(), recent.order.len(), recent.tokens)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_request_is_rendered_once_for_ten_seconds() {
        let server = Server { tokens: 5, ..Server::default() };
        let origin = of("a");
        let both = tokio::join!(server.asked(&origin, "x"), server.asked(&origin, "x"));
        assert_eq!(both, (Source::Server, Source::Recent));
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert_eq!((server.asked(&origin, "x").await, server.held()), (Source::Recent, (1, 1, 5)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(server.asked(&origin, "x").await, Source::Server);
        assert_eq!((server.calls(), server.held()), (2, (1, 1, 5)));
    }

    #[tokio::test(start_paused = true)]
    async fn another_request_or_another_key_is_another_prompt_and_another_trace_is_not() {
        let server = Server::default();
        for (origin, request) in [(of("a"), "x"), (of("b"), "x"), (of("a"), "y")] {
            assert_eq!(server.asked(&origin, request).await, Source::Server);
        }
        let mut traced = of("a");
        traced.headers.insert("traceparent", "00-1".parse().unwrap());
        assert_eq!(server.asked(&traced, "x").await, Source::Recent);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_told_to_all_who_waited_and_not_kept() {
        let renderings = Renderings::default();
        let origin = of("a");
        let failing = || renderings.get(&origin, b"x", || async { Err(UpstreamError::Aborted) });
        let (one, two) = tokio::join!(failing(), failing());
        assert!(one.0.is_err() && two.0.is_err());
        let (rendered, source) = renderings.get(&origin, b"x", || async { Ok(chat(1)) }).await;
        assert!(rendered.is_ok() && source == Source::Server);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_everybody_has_left_is_dropped_and_made_anew() {
        let server = Server::default();
        let origin = of("a");
        let left = Arc::new(());
        let held = Arc::downgrade(&left);
        let never = async move {
            let _left = left;
            std::future::pending().await
        };
        let mut leaving = Box::pin(server.renderings.get(&origin, b"x", || never));
        assert!(futures_util::poll!(&mut leaving).is_pending());
        drop(leaving);
        assert!(held.upgrade().is_none());
        assert_eq!(server.asked(&origin, "x").await, Source::Server);
        assert_eq!(server.held().0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_there_is_room_for() {
        let server = Server { tokens: MOST_TOKENS / 4, ..Server::default() };
        for request in 0..20 {
            server.asked(&of("a"), &request.to_string()).await;
        }
        assert!(server.held().2 <= MOST_TOKENS + server.tokens);
        let server = Server::default();
        for request in 0..2 * MOST {
            server.asked(&of("a"), &request.to_string()).await;
        }
        assert_eq!(server.held(), (MOST, MOST, 0));
    }
}
