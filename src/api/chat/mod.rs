//! `POST /v1/chat/completions`.

mod prompt;
mod respond;
mod types;
mod validate;

use std::sync::Arc;

use bytes::Bytes;

use self::validate::Validated;
use super::reason::Reason;
use super::reply::{Envelope, request_name};
use super::speculated::Job;
use crate::rollout::{Engine, Opening};

/// What is to be speculated for a request, or why the server should answer it. Where there is room for a rollout, it may
/// have begun.
pub(super) async fn prepare(
    engine: &Engine,
    head: &http::request::Parts,
    body: &Bytes,
    has_room: bool,
) -> Result<Job, Reason> {
    let capabilities = engine.capabilities();
    let Validated { common, template, max_tokens, role, echo, wishes } = validate::validate(body, capabilities)?;
    let origin = common.origin(&head.headers)?;
    let id = format!("chatcmpl-{}", request_name(&head.headers, common.request_id.as_deref()));
    let (name, stream) = (Arc::from(id.as_str()), common.streams());
    let mut params = common.params(wishes.n, max_tokens, wishes.logprobs)?;
    let opening = if has_room && params.may_open() && engine.opens_chats() {
        params.check(engine)?;
        let opening = engine.open_chat(&name, &origin, body, stream).await;
        Some(opening.map_err(|error| prompt::refusal(&error))?)
    } else {
        None
    };
    let prompt = if let Some(prompt) = opening.as_ref().and_then(Opening::prompt) {
        prompt.to_vec()
    } else {
        let rendered = prompt::render(engine, &origin, &template, body).await?;
        params.max_tokens = rendered.max_tokens.or(params.max_tokens);
        params.check(engine)?;
        params.check_bad_words(engine, &origin).await?;
        rendered.prompt
    };
    let rollout = params.rollout(name, prompt.clone(), origin, engine);
    let envelope = Envelope::new(engine, id, vec![prompt], wishes).with_created_cache_tokens(&capabilities.chat);
    let dialect = respond::Chat { envelope, role, echo };
    Ok(Job { rollouts: vec![rollout], n: wishes.n, opening, stream, dialect: Box::new(dialect) })
}
