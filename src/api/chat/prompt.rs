//! The prompt of a chat completion, which only the server's own template makes.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::validate::Template;
use crate::api::reason::Reason;
use crate::rollout::Engine;
use crate::upstream::chat::RenderedChat;
use crate::upstream::{Origin, UpstreamError};

/// A prompt as the server would make it.
pub(super) struct Prompt {
    pub(super) prompt: Vec<u32>,
    /// How many tokens the server would let the request have, where it tells.
    pub(super) max_tokens: Option<usize>,
}

#[derive(Serialize)]
struct TokenizeRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: &'a [Map<String, Value>],
    add_generation_prompt: bool,
    continue_final_message: bool,
    add_special_tokens: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'a Map<String, Value>>,
}

/// Has the server make the prompt, if it has not done so a moment ago: by rendering the request where it can, by
/// tokenizing its messages otherwise.
pub(super) async fn render(
    engine: &Engine,
    origin: &Origin,
    template: &Template,
    body: &Bytes,
) -> Result<Prompt, Reason> {
    let rendered = if engine.capabilities().chat.renders {
        engine.render_chat(origin, body).await
    } else if template.needs_rendering {
        return Err(Reason::Feature("template"));
    } else {
        let tokenize = TokenizeRequest {
            model: origin.model.as_deref(),
            messages: &template.messages,
            add_generation_prompt: template.add_generation_prompt,
            continue_final_message: template.continue_final_message,
            add_special_tokens: template.add_special_tokens,
            chat_template: template.chat_template.as_deref(),
            chat_template_kwargs: template.chat_template_kwargs.as_ref(),
        };
        engine.upstream().tokenize_chat(origin, &tokenize).await.map(Arc::new)
    };
    let rendered = rendered.map_err(|error| refusal(&error))?;
    if rendered.has_features {
        return Err(Reason::Feature("multimodal"));
    }
    let RenderedChat { prompt, max_tokens, .. } = Arc::unwrap_or_clone(rendered);
    Ok(Prompt { prompt, max_tokens })
}

/// Whatever went wrong, the server says it best.
pub(super) fn refusal(error: &UpstreamError) -> Reason {
    tracing::debug!(%error, "the server does not make the prompt");
    Reason::Refused
}
