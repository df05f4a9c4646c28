//! Plain decoding as a server-sent event stream. Dropping the stream aborts it on the server.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Deserialize;

use super::body::Pieced;
use super::call::{ABORTED, Call};
use super::client::Upstream;
use super::completions::WireLogprobs;
use super::error::{Refusal, UpstreamError};
use super::origin::Origin;
use super::wire::{Sampled, VersionSpan, WireUsage};
use super::{completions, generate};

/// By which of the server's routes to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// `/v1/completions`: any version, several prompts a request.
    #[default]
    Completions,
    /// `/inference/v1/generate`: tells ranks and policy versions, takes every sampling parameter as it is.
    Generate,
}

/// The tokens that one event brought.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodedChunk {
    /// Newly sampled tokens.
    pub tokens: Vec<Sampled>,
    /// Set by the last chunk: `stop`, `length` and the like.
    pub finish_reason: Option<String>,
    /// The policy versions of the whole output, which the last chunk of the generate route tells.
    pub versions: Vec<VersionSpan>,
    /// What the server says of the request as a whole.
    pub about: About,
    /// The prompt's ids, which the first event of a chat completion tells.
    pub prompt: Option<Vec<u32>>,
}

/// Tokens as they come.
pub type Tokens = BoxStream<'static, Result<DecodedChunk, UpstreamError>>;

/// What the events of a stream say of the request as a whole: some of it early, some at the end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// The name under which the server answers.
    pub model: Option<String>,
    /// The server's `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// Set by the event after the last token, if it was asked for: how many prompt tokens the prefix cache served, where the
    /// server tells.
    pub usage: Option<Option<usize>>,
}

#[derive(Deserialize)]
struct Chunk<C> {
    #[serde(default = "Vec::new")]
    choices: Vec<C>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    system_fingerprint: Option<String>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct CompletionChoice {
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
    #[serde(default)]
    finish_reason: Option<String>,
}

impl Upstream {
    /// Decodes after the call's only prompt, token by token.
    ///
    /// # Errors
    /// When the server refuses; later, as an item, when the stream breaks off before its end or the server aborts.
    pub async fn decode(&self, call: &Call<'_>, route: Route) -> Result<Tokens, UpstreamError> {
        let (path, body) = match route {
            Route::Completions => (completions::PATH, call.as_completion(true)?),
            Route::Generate => (generate::PATH, call.as_generate(true)?),
        };
        self.tokens(call.origin, path, body, move |data| chunk(route, data)).await
    }

    /// What `read` makes of the events that answer a request.
    pub(super) async fn tokens(
        &self,
        origin: &Origin,
        path: &'static str,
        body: Pieced,
        read: impl Fn(&[u8]) -> Result<DecodedChunk, UpstreamError> + Copy + Send + 'static,
    ) -> Result<Tokens, UpstreamError> {
        let response = self.open(origin, path, body).await?;
        let this = self.clone();
        let bytes = response.bytes_stream().map(move |piece| piece.map_err(|error| this.unreachable(&error)));
        let url = self.url().to_owned();
        let tokens = futures_util::stream::unfold(Some((Box::pin(bytes), Events::default())), move |state| {
            let url = url.clone();
            async move {
                let (mut bytes, mut events) = state?;
                loop {
                    match events.next() {
                        Some(Event::Done) => return None,
                        Some(Event::Data(data)) => {
                            let chunk = read(&data);
                            let next = chunk.is_ok().then_some((bytes, events));
                            return Some((chunk, next));
                        }
                        None => {}
                    }
                    let error = match bytes.next().await {
                        Some(Ok(piece)) => {
                            events.push(piece);
                            continue;
                        }
                        Some(Err(error)) => error,
                        None => {
                            UpstreamError::Unreachable { url, reason: "the stream ended before its end".to_owned() }
                        }
                    };
                    return Some((Err(error), None));
                }
            }
        });
        Ok(tokens.boxed())
    }
}

impl Upstream {
    /// Everything that a streamed reply brings, as it was written.
    pub(super) async fn events(
        &self,
        origin: &Origin,
        path: &'static str,
        body: Pieced,
    ) -> Result<Vec<serde_json::Value>, UpstreamError> {
        let response = self.open(origin, path, body).await?;
        let mut events = Events::default();
        events.push(response.bytes().await.map_err(|error| self.unreachable(&error))?);
        let mut all = Vec::new();
        while let Some(Event::Data(data)) = events.next() {
            let read = serde_json::from_slice(&data);
            all.push(read.map_err(|error| UpstreamError::Protocol { path, reason: error.to_string() })?);
        }
        Ok(all)
    }
}

/// What an event of a stream brings.
fn chunk(route: Route, data: &[u8]) -> Result<DecodedChunk, UpstreamError> {
    match route {
        Route::Completions => parse(data, completions::PATH, completion_chunk),
        Route::Generate => parse(data, generate::PATH, generate_chunk),
    }
}

/// What a stream brings that comes in these pieces, up to its end or its first error.
pub(super) fn read(route: Route, pieces: &[&[u8]]) -> Vec<Result<DecodedChunk, UpstreamError>> {
    let mut events = Events::default();
    let mut chunks = Vec::new();
    for piece in pieces {
        events.push(Bytes::copy_from_slice(piece));
        while let Some(event) = events.next() {
            let Event::Data(data) = event else { return chunks };
            chunks.push(chunk(route, &data));
            if chunks.last().is_some_and(Result::is_err) {
                return chunks;
            }
        }
    }
    chunks
}

fn completion_chunk(choice: CompletionChoice) -> Result<DecodedChunk, String> {
    let tokens = choice.logprobs.map(WireLogprobs::sampled).transpose()?.unwrap_or_default();
    Ok(DecodedChunk { tokens, finish_reason: choice.finish_reason, ..DecodedChunk::default() })
}

fn generate_chunk(mut choice: generate::WireChoice) -> Result<DecodedChunk, String> {
    Ok(DecodedChunk {
        tokens: choice.sampled()?,
        versions: choice.weight_versions.unwrap_or_default(),
        finish_reason: choice.finish_reason,
        ..DecodedChunk::default()
    })
}

pub(super) fn parse<C: for<'de> Deserialize<'de>>(
    data: &[u8],
    path: &'static str,
    decoded: fn(C) -> Result<DecodedChunk, String>,
) -> Result<DecodedChunk, UpstreamError> {
    let protocol = |reason: String| UpstreamError::Protocol { path, reason };
    let chunk: Chunk<C> = serde_json::from_slice(data).map_err(|error| protocol(error.to_string()))?;
    if let Some(error) = chunk.error {
        let code = error.get("code").and_then(serde_json::Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let status = code.and_then(|code| http::StatusCode::from_u16(code).ok());
        return Err(UpstreamError::Status(Box::new(Refusal {
            status: status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(data),
        })));
    }
    let Chunk { choices, model, system_fingerprint: fingerprint, usage, prompt_token_ids: prompt, .. } = chunk;
    let mut decoded = choices.into_iter().next().map(decoded).transpose().map_err(protocol)?.unwrap_or_default();
    decoded.about = About { model, fingerprint, usage: usage.map(WireUsage::cached_tokens) };
    decoded.prompt = prompt;
    if decoded.tokens.is_empty() && decoded.finish_reason.as_deref() == Some(ABORTED) {
        return Err(UpstreamError::Aborted);
    }
    Ok(decoded)
}

#[derive(Debug, PartialEq)]
enum Event {
    Data(Bytes),
    Done,
}

/// Cuts a byte stream into the data of its events. vLLM writes one `data:` line an event, and mostly sends it in one
/// piece, which is then read where it lies.
#[derive(Default)]
struct Events {
    left: Bytes,
}

impl Events {
    fn push(&mut self, piece: Bytes) {
        if self.left.is_empty() {
            self.left = piece;
        } else {
            self.left = [&self.left[..], &piece].concat().into();
        }
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.left.iter().position(|byte| *byte == b'\n')?;
            let line = self.left.split_to(end + 1);
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let data = line.slice_ref(data.trim_ascii());
            return Some(if &data[..] == b"[DONE]" { Event::Done } else { Event::Data(data) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_cut_of_the_bytes() {
        let text = b"data: {\"a\":1}\n\n: comment\n\ndata: {\"b\":2}\r\n\r\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut events = Events::default();
            let mut seen = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                events.push(Bytes::from_static(piece));
                while let Some(event) = events.next() {
                    seen.push(event);
                }
            }
            let data = |text: &'static str| Event::Data(Bytes::from_static(text.as_bytes()));
            assert_eq!(seen, [data("{\"a\":1}"), data("{\"b\":2}"), Event::Done], "cut at {cut}");
        }
    }

    #[test]
    fn an_error_event_is_the_servers_error() {
        let data = br#"{"error":{"message":"no","type":"X","code":503}}"#;
        let error = parse(data, completions::PATH, completion_chunk).unwrap_err();
        assert_eq!(error.status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
    }
}
