//! From what came over the wire to what can be speculated, or the reason to forward it.

use serde_json::{Map, Value};

use super::types::ChatRequest;
use crate::api::openai::Common;
use crate::api::reason::Reason;
use crate::api::reply::Wishes;
use crate::upstream::Capabilities;

/// A request with nothing in it that is not speculated.
#[derive(Debug)]
pub(super) struct Validated {
    pub(super) common: Common,
    pub(super) template: Template,
    /// Absent for as many as the server allows.
    pub(super) max_tokens: Option<u64>,
    /// Who speaks in the reply.
    pub(super) role: String,
    /// What is put before the reply's own text.
    pub(super) echo: Option<String>,
    pub(super) wishes: Wishes,
}

/// What the prompt is made of.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) messages: Vec<Map<String, Value>>,
    pub(super) add_generation_prompt: bool,
    pub(super) continue_final_message: bool,
    pub(super) add_special_tokens: bool,
    pub(super) chat_template: Option<String>,
    pub(super) chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether there is something to it that the tokenize route does not take.
    pub(super) needs_rendering: bool,
}

/// Decides whether a request can be speculated.
pub(super) fn validate(body: &[u8], capabilities: &Capabilities) -> Result<Validated, Reason> {
    let chat = &capabilities.chat;
    if !chat.available {
        return Err(Reason::Feature("chat_shape"));
    }
    if chat.parsed {
        return Err(Reason::Feature("chat_parser"));
    }
    let request: ChatRequest = serde_json::from_slice(body).map_err(|_| Reason::Malformed)?;
    if let Some(field) = request.unknown.keys().next() {
        return Err(Reason::UnknownField(field.clone()));
    }
    let common = request.common;
    common.check_features()?;
    let no_tool = |choice: &Value| choice.as_str() == Some("none");
    Reason::first(&[
        (request.tools.is_some() || !request.tool_choice.as_ref().is_none_or(no_tool), "tools"),
        (request.media_io_kwargs.is_some() || request.mm_processor_kwargs.is_some(), "multimodal"),
        (request.messages.iter().any(|message| !is_text(message)), "multimodal"),
        (request.return_prompt_text == Some(true), "return_prompt_text"),
        (request.top_logprobs == -1, "all_logprobs"),
    ])?;
    let last = request.messages.last().ok_or(Reason::Invalid)?;
    let last_role = last.get("role").and_then(Value::as_str).ok_or(Reason::Invalid)?;
    let role = if request.add_generation_prompt { "assistant" } else { last_role }.to_owned();
    let echo = if request.echo && role == last_role {
        let content = last.get("content").and_then(Value::as_str).ok_or(Reason::Feature("echo"))?;
        if common.streams() && !chat.echoes_text {
            return Err(Reason::Feature("echo"));
        }
        Some(content.to_owned())
    } else {
        None
    };
    let top_logprobs = usize::try_from(request.top_logprobs).map_err(|_| Reason::Invalid)?;
    let logprobs = (request.logprobs == Some(true)).then_some(top_logprobs);
    if logprobs.is_none() && top_logprobs > 0 {
        return Err(Reason::Invalid);
    }
    let wishes = Wishes {
        n: request.n.unwrap_or(1),
        logprobs,
        tokens_as_ids: common.names_tokens_by_id(capabilities),
        return_token_ids: common.return_token_ids == Some(true),
        usage: common.usage(capabilities)?,
    };
    let common = if request.echo { common.with_prompt_logprobs(top_logprobs) } else { common };
    let needs_rendering =
        request.reasoning_effort.is_some() || request.documents.is_some() || common.has_response_format();
    Ok(Validated {
        common,
        template: Template {
            messages: request.messages,
            add_generation_prompt: request.add_generation_prompt,
            continue_final_message: request.continue_final_message,
            add_special_tokens: request.add_special_tokens,
            chat_template: request.chat_template,
            chat_template_kwargs: request.chat_template_kwargs,
            needs_rendering,
        },
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        role,
        echo,
        wishes,
    })
}

/// Whether a message is nothing but text.
fn is_text(message: &Map<String, Value>) -> bool {
    match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => true,
        Some(Value::Array(parts)) => {
            parts.iter().all(|part| part.is_string() || part.get("type").and_then(Value::as_str) == Some("text"))
        }
        Some(_) => false,
    }
}
