//! Text to ids and back, by the server's own tokenizer.

use serde::{Deserialize, Serialize};

use super::client::Upstream;
use super::error::UpstreamError;
use super::origin::Origin;

const TOKENIZE: &str = "/tokenize";
const DETOKENIZE: &str = "/detokenize";

#[derive(Serialize)]
struct TokenizeRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    prompt: &'a str,
    add_special_tokens: bool,
}

#[derive(Deserialize)]
struct TokenizeReply {
    tokens: Vec<u32>,
}

#[derive(Serialize)]
struct DetokenizeRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    tokens: &'a [u32],
}

#[derive(Deserialize)]
struct DetokenizeReply {
    prompt: String,
}

impl Upstream {
    /// The ids that the server would use for `text` as a prompt.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn tokenize(
        &self,
        origin: &Origin,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<u32>, UpstreamError> {
        let request = TokenizeRequest { model: origin.model.as_deref(), prompt: text, add_special_tokens };
        let body = self.post(origin, TOKENIZE, &request).await?;
        let reply: TokenizeReply = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::Protocol { path: TOKENIZE, reason: error.to_string() })?;
        Ok(reply.tokens)
    }

    /// The text of `tokens`, special ones included.
    ///
    /// # Errors
    /// When the server refuses, for one because an id lies outside its vocabulary.
    pub async fn detokenize(&self, origin: &Origin, tokens: &[u32]) -> Result<String, UpstreamError> {
        let request = DetokenizeRequest { model: origin.model.as_deref(), tokens };
        let body = self.post(origin, DETOKENIZE, &request).await?;
        let reply: DetokenizeReply = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::Protocol { path: DETOKENIZE, reason: error.to_string() })?;
        Ok(reply.prompt)
    }
}
