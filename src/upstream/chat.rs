//! Chat messages to prompt ids, by the server's own template and tokenizer.

use bytes::Bytes;
use serde::Deserialize;

use super::client::Upstream;
use super::error::UpstreamError;
use super::origin::Origin;

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
