//! `POST /v1/chat/completions`.

mod prompt;
mod respond;
mod types;
mod validate;

use std::sync::Arc;

use bytes::Bytes;

use super::reason::Reason;
use super::reply::{Envelope, request_name};
use super::speculated::Job;
use crate::rollout::Engine;

/// What is to be speculated for a request, or why the server should answer it.
pub(super) async fn prepare(engine: &Engine, head: &http::request::Parts, body: &Bytes) -> Result<Job, Reason> {
    let capabilities = engine.capabilities();
    let request = validate::validate(body, capabilities)?;
    let origin = request.common.origin(&head.headers)?;
    let name = request_name(&head.headers, request.common.request_id.as_deref());
    let (stream, wishes) = (request.common.streams(), request.wishes);
    let rendered = prompt::render(engine, &origin, &request, body).await?;
    let params = request.common.params(wishes.n, rendered.max_tokens.or(request.max_tokens), wishes.logprobs)?;
    params.check(engine)?;
    params.check_bad_words(engine, &origin).await?;
    let id = format!("chatcmpl-{name}");
    let rollout = params.rollout(Arc::from(id.as_str()), rendered.prompt.clone(), origin, engine);
    let envelope =
        Envelope::new(engine, id, vec![rendered.prompt], wishes).with_created_cache_tokens(&capabilities.chat);
    let dialect = respond::Chat { envelope, role: request.role, echo: request.echo };
    Ok(Job { rollouts: vec![rollout], n: wishes.n, stream, dialect: Box::new(dialect) })
}
