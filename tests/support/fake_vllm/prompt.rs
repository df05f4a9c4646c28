//! The prompts of a completion request.

use serde_json::Value;

use super::engine::Engine;
use super::error::ApiError;
use super::validate;

/// One prompt: its ids, and the text that `echo` returns.
pub struct Prompt {
    pub ids: Vec<u32>,
    pub text: String,
}

/// The prompts of a request: a text, a list of ids, or a list of either.
///
/// # Errors
/// A 400 for anything else.
pub fn prompts(engine: &Engine, prompt: &Value) -> Result<Vec<Prompt>, ApiError> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Prompt { ids: engine.codec.encode(text), text: text.clone() }),
        Value::Array(ids) => {
            let ids = ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
            let ids: Vec<u32> = ids.collect::<Option<_>>().ok_or_else(|| validate::wrong_type("prompt"))?;
            Ok(Prompt { text: engine.codec.decode(&ids, false), ids })
        }
        _ => Err(validate::wrong_type("prompt")),
    };
    match prompt {
        Value::Array(list) if list.is_empty() => Err(ApiError::bad_request("You must pass at least one prompt")),
        Value::Array(list) if list.first().is_some_and(|first| !first.is_number()) => {
            if engine.config.is_rust_frontend() {
                return Err(ApiError::bad_request("Only a single prompt is supported."));
            }
            list.iter().map(one).collect()
        }
        other => Ok(vec![one(other)?]),
    }
}
