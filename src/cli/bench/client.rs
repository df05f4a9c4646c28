//! Rollouts over HTTP: as little work as can be while the clock runs.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::request::Prepared;

/// vLLM closes a connection that was idle for 5 seconds. To write into one that is being closed fails a rollout, so none
/// is kept that long.
const IDLE: Duration = Duration::from_secs(3);

/// A client for both arms.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
}

/// A reply that nobody has read yet.
#[derive(Debug)]
pub(super) struct Raw {
    /// Since the round began.
    pub started: Duration,
    pub ended: Duration,
    /// The first piece of the body came then.
    pub first: Option<Duration>,
    /// Status and body.
    pub reply: Result<(u16, Vec<Bytes>), String>,
}

impl Client {
    /// A client that gives up on a rollout after `patience`.
    pub(super) fn new(api_key: Option<&str>, patience: Duration) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).context("--api-key")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .timeout(patience)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http })
    }

    /// The text of a page.
    pub(super) async fn get(&self, url: &str) -> anyhow::Result<String> {
        let reply = self.http.get(url).send().await.with_context(|| format!("cannot reach {url}"))?;
        let status = reply.status();
        if !status.is_success() {
            bail!("{url} answers {status}");
        }
        reply.text().await.with_context(|| format!("{url} does not finish its answer"))
    }

    /// Sends all requests to the server at `url`, `workers` of them at a time and each as soon as one before it is done.
    /// Returns the time until the last reply ended and the replies in the order of the requests.
    pub(super) async fn round(
        &self,
        url: &str,
        requests: &[Prepared],
        workers: usize,
        ended: impl Fn(),
    ) -> (Duration, Vec<Raw>) {
        let clock = Instant::now();
        let mut replies = stream::iter(requests.iter().enumerate())
            .map(|(index, request)| async move { (index, self.send(url, request, clock).await) })
            .buffer_unordered(workers);
        let mut raws = Vec::with_capacity(requests.len());
        while let Some(raw) = replies.next().await {
            ended();
            raws.push(raw);
        }
        let last = raws.iter().map(|(_, raw)| raw.ended).max().unwrap_or_default();
        raws.sort_by_key(|(index, _)| *index);
        (last, raws.into_iter().map(|(_, raw)| raw).collect())
    }

    async fn send(&self, url: &str, request: &Prepared, clock: Instant) -> Raw {
        let started = clock.elapsed();
        let mut first = None;
        let reply = self.fetch(url, request, || first = first.or_else(|| Some(clock.elapsed()))).await;
        let ended = clock.elapsed();
        let reply = reply.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        Raw { started, ended, first, reply }
    }

    async fn fetch(
        &self,
        url: &str,
        request: &Prepared,
        mut on_piece: impl FnMut(),
    ) -> reqwest::Result<(u16, Vec<Bytes>)> {
        let sent = self.http.post(format!("{url}{}", request.path)).body(request.body.clone()).send();
        let mut reply = sent.await?;
        let mut pieces = Vec::new();
        while let Some(piece) = reply.chunk().await? {
            on_piece();
            pieces.push(piece);
        }
        Ok((reply.status().as_u16(), pieces))
    }
}
