//! `POST /v1/completions`.

mod respond;
mod types;
mod validate;

use std::sync::Arc;

use super::reason::Reason;
use super::reply::{Envelope, request_name};
use super::speculated::Job;
use crate::rollout::Engine;
use crate::upstream::Origin;
use validate::Prompt;

/// What is to be speculated for a request, or why the server should answer it.
pub(super) async fn prepare(engine: &Engine, head: &http::request::Parts, body: &[u8]) -> Result<Job, Reason> {
    let capabilities = engine.capabilities();
    let request = validate::validate(body, capabilities)?;
    let origin = request.common.origin(&head.headers)?;
    let name = request_name(&head.headers, request.common.request_id.as_deref());
    let (stream, wishes) = (request.common.streams(), request.wishes);
    let prompts = tokenize(engine, &origin, &request.prompts, request.add_special_tokens).await?;
    let params = request.common.params(wishes.n, Some(request.max_tokens), wishes.logprobs)?;
    params.check(engine)?;
    params.check_bad_words(engine, &origin).await?;
    let id = format!("cmpl-{name}");
    let rollouts = prompts.iter().enumerate().map(|(index, prompt)| {
        let id = Arc::from(format!("{id}-{index}"));
        params.rollout(id, prompt.clone(), origin.clone(), engine)
    });
    let rollouts = rollouts.collect();
    let dialect = respond::Completions(Envelope::new(engine, id, prompts, wishes));
    Ok(Job { rollouts, n: wishes.n, opening: None, stream, dialect: Box::new(dialect) })
}

/// The prompts as ids; text by the server's own tokenizer.
async fn tokenize(
    engine: &Engine,
    origin: &Origin,
    prompts: &[Prompt],
    add_special_tokens: bool,
) -> Result<Vec<Vec<u32>>, Reason> {
    let each = prompts.iter().map(|prompt| async move {
        match prompt {
            Prompt::Ids(ids) => Ok(ids.clone()),
            Prompt::Text(text) => engine.upstream().tokenize(origin, text, add_special_tokens).await,
        }
    });
    futures_util::future::try_join_all(each).await.map_err(|_| Reason::Refused)
}
