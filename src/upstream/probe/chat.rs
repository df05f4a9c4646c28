//! What a server makes of chat completions: whether it answers them plainly, and how long they may get.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::upstream::capabilities::{ChatSupport, TokenLimits};
use crate::upstream::chat::RenderedChat;
use crate::upstream::client::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::origin::Origin;

const PATH: &str = "/v1/chat/completions";
/// How long a refusal may take.
const REFUSAL_TIME: Duration = Duration::from_secs(5);
/// The keys of a reply, of a choice and of a message in the shape that this sidecar answers in (vLLM 0.32).
const REPLY: [&str; 14] = [
    "choices",
    "created",
    "ec_transfer_params",
    "id",
    "kv_transfer_params",
    "metrics",
    "model",
    "object",
    "prompt_logprobs",
    "prompt_text",
    "prompt_token_ids",
    "service_tier",
    "system_fingerprint",
    "usage",
];
const CHOICE: [&str; 7] =
    ["finish_reason", "index", "logprobs", "message", "routed_experts", "stop_reason", "token_ids"];
const MESSAGE: [&str; 7] = ["annotations", "audio", "content", "function_call", "reasoning", "refusal", "role"];

impl Upstream {
    /// Asks for a short chat completion in the ways that show what the server does with it.
    pub(super) async fn chat_support(
        &self,
        origin: &Origin,
        max_model_len: usize,
    ) -> Result<(ChatSupport, TokenLimits), UpstreamError> {
        let messages = json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]);
        // With a parser, a client that does not want the reasoning gets no log-probabilities either: they would show
        // it. So their absence tells that there is one, of whichever kind.
        let request = json!({
            "model": origin.model, "messages": messages, "max_tokens": 1, "logprobs": true, "include_reasoning": false,
            "return_token_ids": true,
        });
        let reply: Value = match self.post(origin, PATH, &request).await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
            // A model without a chat template, or a server that does not chat.
            Err(error) if !error.is_transient() => return Ok((ChatSupport::default(), TokenLimits::default())),
            Err(error) => return Err(error),
        };
        let choice = &reply["choices"][0];
        let has = |value: &Value, names: &[&str]| {
            value.as_object().is_some_and(|object| {
                object.keys().map(String::as_str).collect::<BTreeSet<_>>() == names.iter().copied().collect()
            })
        };
        let available = has(&reply, &REPLY) && has(choice, &CHOICE) && has(&choice["message"], &MESSAGE);
        let parsed = choice["logprobs"].is_null() || !reply["usage"]["completion_tokens_details"].is_null();
        let (renders, limits) = match self.limits(origin, &messages, max_model_len).await {
            Ok(limits) => (true, limits),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => {
                let prompt_tokens = reply["usage"]["prompt_tokens"].as_u64().unwrap_or_default();
                let room = max_model_len.saturating_sub(usize::try_from(prompt_tokens).unwrap_or_default());
                (false, self.limits_by_refusal(origin, &messages, max_model_len, room).await?)
            }
        };
        let echoes_text = available && self.echoes_text(origin, &messages).await?;
        let cache_block = self.cache_block(&reply["usage"]).await;
        Ok((ChatSupport { available, parsed, renders, echoes_text, cache_block }, limits))
    }

    /// The block size that the server's metrics tell, if it explains what a reply's `usage` says of the cache.
    async fn cache_block(&self, usage: &Value) -> Option<usize> {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let details = &usage["prompt_tokens_details"];
        let (cached, created) = (count(&details["cached_tokens"])?, count(&details["created_cache_tokens"])?);
        let page = self.get("/metrics").await.ok()?;
        let page = String::from_utf8_lossy(&page);
        let label = ["{block_size=\"", ",block_size=\""];
        let (_, after) = label.iter().find_map(|label| page.split_once(label))?;
        let block = after.split('"').next()?.parse().ok().filter(|block| *block > 0);
        let chat = ChatSupport { cache_block: block, ..ChatSupport::default() };
        let explained = chat.created_cache_tokens(count(&usage["prompt_tokens"])?, cached) == Some(created);
        chat.cache_block.filter(|_| explained)
    }

    /// Rendering shows how many tokens a request ends up with that says nothing, and one that wants them all.
    async fn limits(
        &self,
        origin: &Origin,
        messages: &Value,
        max_model_len: usize,
    ) -> Result<TokenLimits, UpstreamError> {
        let render = async |max_tokens: Option<usize>| {
            let request = json!({ "model": origin.model, "messages": messages, "max_tokens": max_tokens });
            let rendered: RenderedChat = self.render_chat(origin, request.to_string().into()).await?;
            let room = max_model_len.saturating_sub(rendered.prompt.len());
            Ok::<_, UpstreamError>((rendered.max_tokens.filter(|most| *most < room), room))
        };
        let (default, room) = render(None).await?;
        let (most, _) = render(Some(room)).await?;
        Ok(TokenLimits { most, default })
    }

    /// The same from a server that does not render: it refuses to give more tokens at least than at most, before it
    /// computes anything, and says how many the most are.
    async fn limits_by_refusal(
        &self,
        origin: &Origin,
        messages: &Value,
        max_model_len: usize,
        room: usize,
    ) -> Result<TokenLimits, UpstreamError> {
        let ask = async |max_tokens: Option<usize>| {
            let request = json!({
                "model": origin.model, "messages": messages, "max_tokens": max_tokens, "min_tokens": max_model_len,
            });
            // A server that does not refuse is not to compute all that.
            match tokio::time::timeout(REFUSAL_TIME, self.post(origin, PATH, &request)).await {
                Ok(Err(UpstreamError::Status(refusal))) if refusal.status.is_client_error() => {
                    Ok(most_in(&String::from_utf8_lossy(&refusal.body)).filter(|most| *most < room))
                }
                Ok(Err(error)) if error.is_transient() => Err(error),
                _ => Ok(None),
            }
        };
        Ok(TokenLimits { default: ask(None).await?, most: ask(Some(room)).await? })
    }

    async fn echoes_text(&self, origin: &Origin, messages: &Value) -> Result<bool, UpstreamError> {
        let request = json!({
            "model": origin.model, "messages": messages, "max_tokens": 1, "stream": true, "echo": true,
            "add_generation_prompt": false, "continue_final_message": true,
        });
        match self.events(origin, PATH, bytes::Bytes::from(request.to_string()).into()).await {
            Ok(events) => Ok(events.iter().any(|event| event["choices"][0]["delta"]["content"] == "b")),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// The number in "min_tokens must be less than or equal to max_tokens=21, got 4096."
fn most_in(refusal: &str) -> Option<usize> {
    let (_, after) = refusal.split_once("max_tokens=")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_the_most_tokens() {
        let text = "min_tokens must be less than or equal to max_tokens=21, got 4096. (parameter=min_tokens)";
        assert_eq!(most_in(text), Some(21));
        assert_eq!(most_in("no"), None);
    }
}
