//! Plain decoding as a server-sent event stream of `/v1/completions`. Dropping the stream aborts it on the server.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;

use super::client::Upstream;
use super::completions::{CompletionCall, PATH, WireLogprobs};
use super::error::{Refusal, UpstreamError};
use super::wire::Sampled;

/// The tokens that one event brought.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodedChunk {
    /// Newly sampled tokens.
    pub tokens: Vec<Sampled>,
    /// Set by the last chunk: `stop`, `length` and the like.
    pub finish_reason: Option<String>,
    /// The server's `system_fingerprint`, where a chunk carries it.
    pub fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct WireChunk {
    #[serde(default)]
    choices: Vec<WireChoice>,
    #[serde(default)]
    system_fingerprint: Option<String>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
    #[serde(default)]
    finish_reason: Option<String>,
}

impl Upstream {
    /// Decodes after the call's only prompt, token by token.
    ///
    /// # Errors
    /// When the server refuses; later, as an item, when the stream breaks off before its end.
    pub async fn decode(
        &self,
        call: &CompletionCall<'_>,
    ) -> Result<impl Stream<Item = Result<DecodedChunk, UpstreamError>> + Send + use<>, UpstreamError> {
        let response = self.open(call.origin, PATH, &call.wire(true)).await?;
        let this = self.clone();
        let bytes = response.bytes_stream().map(move |piece| piece.map_err(|error| this.unreachable(&error)));
        let url = self.url().to_owned();
        Ok(futures_util::stream::unfold(Some((Box::pin(bytes), Events::default())), move |state| {
            let url = url.clone();
            async move {
                let (mut bytes, mut events) = state?;
                loop {
                    match events.next() {
                        Some(Event::Done) => return None,
                        Some(Event::Data(data)) => {
                            let chunk = parse(&data);
                            let next = chunk.is_ok().then_some((bytes, events));
                            return Some((chunk, next));
                        }
                        None => {}
                    }
                    let error = match bytes.next().await {
                        Some(Ok(piece)) => {
                            events.push(&piece);
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
        }))
    }
}

fn parse(data: &[u8]) -> Result<DecodedChunk, UpstreamError> {
    let protocol = |reason: String| UpstreamError::Protocol { path: PATH, reason };
    let chunk: WireChunk = serde_json::from_slice(data).map_err(|error| protocol(error.to_string()))?;
    if let Some(error) = chunk.error {
        let code = error.get("code").and_then(serde_json::Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let status = code.and_then(|code| http::StatusCode::from_u16(code).ok());
        return Err(UpstreamError::Status(Box::new(Refusal {
            status: status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(data),
        })));
    }
    let mut decoded = DecodedChunk { fingerprint: chunk.system_fingerprint, ..DecodedChunk::default() };
    if let Some(choice) = chunk.choices.into_iter().next() {
        decoded.finish_reason = choice.finish_reason;
        if let Some(logprobs) = choice.logprobs {
            decoded.tokens = logprobs.sampled().map_err(protocol)?;
        }
    }
    Ok(decoded)
}

#[derive(Debug, PartialEq)]
enum Event {
    Data(Bytes),
    Done,
}

/// Cuts a byte stream into the data of its events. vLLM writes one `data:` line an event.
#[derive(Default)]
struct Events {
    buffer: BytesMut,
}

impl Events {
    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
            let line = self.buffer.split_to(end + 1).freeze();
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
                events.push(piece);
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
        let error = parse(br#"{"error":{"message":"no","type":"X","code":503}}"#).unwrap_err();
        assert_eq!(error.status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
    }
}
