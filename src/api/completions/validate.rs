//! From what came over the wire to what can be speculated, or the reason to forward it.

use super::types::{CompletionRequest, PromptField};
use crate::api::openai::Common;
use crate::api::reason::Reason;
use crate::api::reply::Wishes;
use crate::upstream::Capabilities;

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// A request with nothing in it that is not speculated.
#[derive(Debug)]
pub(super) struct Validated {
    pub(super) common: Common,
    pub(super) prompts: Vec<Prompt>,
    pub(super) add_special_tokens: bool,
    pub(super) max_tokens: u64,
    pub(super) wishes: Wishes,
}

/// Decides whether a request can be speculated.
pub(super) fn validate(body: &[u8], capabilities: &Capabilities) -> Result<Validated, Reason> {
    let request: CompletionRequest = serde_json::from_slice(body).map_err(|_| Reason::Malformed)?;
    if let Some(field) = request.unknown.keys().next() {
        return Err(Reason::UnknownField(field.clone()));
    }
    let common = request.common;
    common.check_features()?;
    Reason::first(&[
        (request.echo == Some(true), "echo"),
        (request.suffix.is_some(), "suffix"),
        (request.prompt_embeds.is_some(), "prompt_embeds"),
        (request.logprobs == Some(-1), "all_logprobs"),
    ])?;
    let count = |value: i64| usize::try_from(value).map_err(|_| Reason::Invalid);
    let wishes = Wishes {
        n: request.n,
        logprobs: request.logprobs.map(count).transpose()?,
        tokens_as_ids: common.names_tokens_by_id(capabilities),
        return_token_ids: common.return_token_ids == Some(true),
        usage: common.usage(capabilities)?,
    };
    Ok(Validated {
        common,
        prompts: prompts(request.prompt)?,
        add_special_tokens: request.add_special_tokens,
        max_tokens: request.max_tokens.unwrap_or(16),
        wishes,
    })
}

fn prompts(field: Option<PromptField>) -> Result<Vec<Prompt>, Reason> {
    let prompts = match field {
        None => Vec::new(),
        Some(PromptField::Text(text)) => vec![Prompt::Text(text)],
        Some(PromptField::Ids(ids)) => vec![Prompt::Ids(ids)],
        Some(PromptField::Texts(texts)) => texts.into_iter().map(Prompt::Text).collect(),
        Some(PromptField::IdLists(lists)) => lists.into_iter().map(Prompt::Ids).collect(),
    };
    let empty = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Ids(ids) => ids.is_empty(),
    };
    if prompts.is_empty() || prompts.iter().any(empty) { Err(Reason::Invalid) } else { Ok(prompts) }
}
