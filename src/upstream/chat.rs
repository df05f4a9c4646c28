//! Chat messages to prompt ids, by the server's own template and tokenizer: alone, or with the tokens that follow.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Pieced, Pieces};
use super::client::Upstream;
use super::error::UpstreamError;
use super::origin::Origin;
use super::stream::{self, DecodedChunk, Tokens};
use super::wire::{NamedId, Sampled};

const CHAT: &str = "/v1/chat/completions";
pub(super) const RENDER: &str = "/v1/chat/completions/render";
const TOKENIZE: &str = "/tokenize";

/// A prompt as the server would make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedChat {
    /// Its ids.
    pub prompt: Vec<u32>,
    /// How many tokens the server would let the request have; only rendering tells.
    pub max_tokens: Option<usize>,
    /// Whether there is more to it than these ids, images for one.
    pub has_features: bool,
}

#[derive(Deserialize)]
struct Rendered {
    token_ids: Vec<u32>,
    #[serde(default)]
    features: Option<serde::de::IgnoredAny>,
    sampling_params: RenderedSampling,
}

#[derive(Deserialize)]
struct RenderedSampling {
    #[serde(default = "unsaid_max_tokens")]
    max_tokens: Option<usize>,
}

/// What vLLM's sampling parameters hold where nothing is said; rendering leaves out what has that value.
fn unsaid_max_tokens() -> Option<usize> {
    Some(16)
}

#[derive(Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct StreamedChoice {
    #[serde(default)]
    logprobs: Option<Logprobs>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Token>>,
}

/// Its name is a placeholder that holds its id.
#[derive(Deserialize)]
struct Token {
    token: NamedId,
    logprob: f64,
}

/// What is said of a request's form anew.
const FORM: [&str; 8] = [
    "stream",
    "stream_options",
    "stream_interval",
    "logprobs",
    "top_logprobs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    // A name belongs to one request.
    "request_id",
];

/// A chat completion request as one for a stream of ids, the prompt's too, with so many tokens in an event.
fn as_stream(request: &[u8], interval: Option<usize>) -> Result<Pieced, UpstreamError> {
    let protocol = |error: serde_json::Error| UpstreamError::Protocol { path: CHAT, reason: error.to_string() };
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(request).map_err(protocol)?;
    fields.retain(|name, _| !FORM.contains(&name.as_str()));
    let mut body = Pieces::object(&fields).map_err(protocol)?;
    let separator = if fields.is_empty() { "" } else { "," };
    let interval = interval.map_or_else(String::new, |tokens| format!(r#""stream_interval":{tokens},"#));
    let form = concat!(
        r#""stream":true,"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":0,"#,
        r#""return_token_ids":true,"return_tokens_as_token_ids":true}"#,
    );
    body.text().extend_from_slice([separator, &interval, form].concat().as_bytes());
    Ok(body.finish())
}

fn streamed_chunk(choice: StreamedChoice) -> Result<DecodedChunk, String> {
    let tokens = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
    let sampled = |Token { token: NamedId(token), logprob }| Sampled { token, logprob, rank: None, candidates: vec![] };
    Ok(DecodedChunk {
        tokens: tokens.into_iter().map(sampled).collect(),
        finish_reason: choice.finish_reason,
        ..DecodedChunk::default()
    })
}

impl Upstream {
    /// The prompt of a whole chat completion request, which is sent as it came.
    ///
    /// # Errors
    /// When the server refuses: it would refuse the request itself in the same words.
    pub async fn render_chat(&self, origin: &Origin, request: Bytes) -> Result<RenderedChat, UpstreamError> {
        let body = self.post_body(origin, RENDER, request.into()).await?;
        let rendered: Rendered = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::Protocol { path: RENDER, reason: error.to_string() })?;
        Ok(RenderedChat {
            prompt: rendered.token_ids,
            max_tokens: rendered.sampling_params.max_tokens,
            has_features: rendered.features.is_some(),
        })
    }

    /// Decodes as a chat completion request says, one output, token by token; the first event tells the prompt. Of what the
    /// client says of the reply's form, such as log-probabilities beside the sampled tokens' own, nothing is asked.
    ///
    /// # Errors
    /// When the server refuses; later, as an item, when the stream breaks off before its end or the server aborts.
    pub async fn decode_chat(
        &self,
        origin: &Origin,
        request: &[u8],
        interval: Option<usize>,
    ) -> Result<Tokens, UpstreamError> {
        let body = as_stream(request, interval)?;
        self.tokens(origin, CHAT, body, |data| stream::parse(data, CHAT, streamed_chunk)).await
    }

    /// The prompt of a tokenize request with messages.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn tokenize_chat<B: serde::Serialize>(
        &self,
        origin: &Origin,
        request: &B,
    ) -> Result<RenderedChat, UpstreamError> {
        let body = self.post(origin, TOKENIZE, request).await?;
        let tokenized: Tokenized = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::Protocol { path: TOKENIZE, reason: error.to_string() })?;
        Ok(RenderedChat { prompt: tokenized.tokens, max_tokens: None, has_features: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(request: &str, interval: Option<usize>) -> String {
        String::from_utf8(as_stream(request.as_bytes(), interval).unwrap().concat()).unwrap()
    }

    #[test]
    fn a_request_keeps_all_but_its_form() {
        let request = r#"{"messages":[{"role":"user","content":"\u00e9"}], "seed": 18446744073709551617, "temperature":0.10,
            "stream":false, "str\u0065am_options":null, "logprobs":false,"request_id":"r","return_token_ids":false}"#;
        expect_test::expect![[r#"{"messages":[{"role":"user","content":"\u00e9"}],"seed":18446744073709551617,"temperature":0.10,"stream_interval":8,"stream":true,"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":0,"return_token_ids":true,"return_tokens_as_token_ids":true}"#]]
        .assert_eq(&rewritten(request, Some(8)));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(as_stream(b"[]", None).is_err());
    }

    #[test]
    fn events_tell_the_prompt_and_then_tokens() {
        let read = |data: &str| stream::parse(data.as_bytes(), CHAT, streamed_chunk).unwrap();
        let first = read(
            r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,
                "finish_reason":null}],"prompt_token_ids":[3,4]}"#,
        );
        assert_eq!((first.prompt, first.tokens), (Some(vec![3, 4]), vec![]));
        let next = read(
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length","token_ids":[7],"logprobs":
                {"content":[{"token":"token_id:7","logprob":-0.5,"bytes":[97],"top_logprobs":[]}]}}]}"#,
        );
        let sampled = Sampled { token: 7, logprob: -0.5, rank: None, candidates: vec![] };
        assert_eq!((next.prompt, next.tokens, next.finish_reason.as_deref()), (None, vec![sampled], Some("length")));
    }
}
