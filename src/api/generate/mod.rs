//! `POST /inference/v1/generate`: token ids in, token ids out.

mod respond;
mod types;
mod validate;

use std::sync::Arc;

use super::reason::Reason;
use super::reply::{Envelope, request_name};
use super::speculated::Job;
use crate::rollout::Engine;

/// What is to be speculated for a request, or why the server should answer it.
pub(super) async fn prepare(engine: &Engine, head: &http::request::Parts, body: &[u8]) -> Result<Job, Reason> {
    let capabilities = engine.capabilities();
    let request = validate::validate(&head.headers, body, capabilities)?;
    request.params.check(engine)?;
    request.params.check_bad_words(engine, &request.origin).await?;
    let name = request_name(&head.headers, request.request_id.as_deref());
    let id = format!("generate-tokens-{name}");
    let rollout = request.params.rollout(Arc::from(id.as_str()), request.prompt.clone(), request.origin, engine);
    let dialect = respond::Generate(Envelope::new(engine, id, vec![request.prompt], request.wishes));
    Ok(Job {
        rollouts: vec![rollout],
        n: request.wishes.n,
        opening: None,
        stream: request.stream,
        dialect: Box::new(dialect),
    })
}
